# Stage formats: the masks as other programs want them; docs/export.md. One job a split and format, CPU only.
# Reads `images` and merged `masks` tables of all batches, one batch in memory at a time. COCO and Parquet are one file;
# the others are files an image in a folder, and the output is the report beside it, which is written last.


rule export_split:
    input:
        images=batches_of_split("datasets"),
        masks=batches_of_split("merge"),
    output:
        "results/{dataset}/export/{format}/{split}.json",
    log:
        "results/{dataset}/logs/export/{format}/{split}.log",
    benchmark:
        "results/{dataset}/benchmarks/export/{format}/{split}.tsv"
    wildcard_constraints:
        format="coco|xmask|iim|yolo|label-map",
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=lambda wildcards, attempt: max(60, images_in(wildcards) // 20) * attempt,
    params:
        settings=settings_of_format,
    shell:
        "crowdmask stage formats --name {wildcards.dataset:q} --to {wildcards.format:q} --split {wildcards.split:q}"
        " --images {input.images:q} --masks {input.masks:q} --settings {params.settings:q} --output {output:q}"
        " > {log:q} 2>&1"


rule export_parquet:
    input:
        images=every_batch("datasets"),
        masks=every_batch("merge"),
    output:
        "results/{dataset}/export/parquet/masks.parquet",
    log:
        "results/{dataset}/logs/export/parquet.log",
    benchmark:
        "results/{dataset}/benchmarks/export/parquet.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=lambda wildcards, attempt: max(60, images_in(wildcards) // 50) * attempt,
    params:
        settings=stage_settings("formats"),
    shell:
        "crowdmask stage formats --name {wildcards.dataset:q} --to parquet --split all"
        " --images {input.images:q} --masks {input.masks:q} --settings {params.settings:q} --output {output:q}"
        " > {log:q} 2>&1"
