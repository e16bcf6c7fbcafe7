# Stage export: COCO file of the whole data set, the table of its edits, and pictures of a few images.
# Reads `images`, merged `masks` and `edits` tables of all batches; memory does not grow with the data set. CPU only.


rule export:
    input:
        images=every_batch("datasets"),
        masks=every_batch("merge"),
        edits=edits_of_all,
    output:
        masks="results/{dataset}/masks.json",
        edits="results/{dataset}/edits.csv",
    log:
        "results/{dataset}/logs/export.log",
    benchmark:
        "results/{dataset}/benchmarks/export.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=lambda wildcards, attempt: max(60, images_in(wildcards) // 50) * attempt,
    params:
        settings=stage_settings("export"),
    shell:
        "crowdmask stage export --name {wildcards.dataset:q} --images {input.images:q} --masks {input.masks:q}"
        " --edits {input.edits:q} --settings {params.settings:q}"
        " --output {output.masks:q} --edits-output {output.edits:q} > {log:q} 2>&1"


rule overlay:
    input:
        images=batch_table("datasets"),
        masks=batch_table("merge"),
    output:
        report(
            "results/{dataset}/overlays/{split}/{image_id}.png",
            caption="../report/overlay.rst",
            category="{dataset}",
            subcategory="masks",
            labels={"what": "{split}/{image_id}"},
        ),
    log:
        "results/{dataset}/logs/overlay/{split}/{image_id}.log",
    benchmark:
        "results/{dataset}/benchmarks/overlay/{split}/{image_id}.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=stage_settings("overlay"),
        root=root_of,
    shell:
        "crowdmask stage overlay --images {input.images:q} --masks {input.masks:q} --root {params.root:q}"
        " --split {wildcards.split:q} --image-id {wildcards.image_id:q}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule overlays:
    input:
        pictures_of,
    output:
        "results/{dataset}/overlays/index.html",
    log:
        "results/{dataset}/logs/overlays.log",
    benchmark:
        "results/{dataset}/benchmarks/overlays.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    shell:
        "crowdmask stage overlays --pictures {input:q} --output {output:q} > {log:q} 2>&1"
