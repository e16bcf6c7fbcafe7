# Stage corrections: what people's edits changed, as a page and as JSON.
# Reads `images`, `masks` (of exclude and of merge), `edits` and, where there are some, `truth` tables of all batches,
# the edit files, and the images of which it shows crops. Memory does not grow with the data set. CPU only.


rule corrections:
    input:
        images=every_batch("datasets"),
        made=every_batch("exclude"),
        masks=every_batch("merge"),
        edits=edits_of_all,
        truth=truth_if_any,
        files=all_corrections,
    output:
        page=report(
            "results/{dataset}/corrections.html",
            caption="../report/corrections.rst",
            category="{dataset}",
            subcategory="masks",
            labels={"what": "corrections"},
        ),
        table="results/{dataset}/corrections.json",
    log:
        "results/{dataset}/logs/corrections.log",
    benchmark:
        "results/{dataset}/benchmarks/corrections.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=lambda wildcards, attempt: max(60, images_in(wildcards) // 50) * attempt,
    params:
        settings=stage_settings("corrections"),
        root=root_of,
        folder=folder_of_edits,
    shell:
        # The folder, not its files, of which there may be more than a command line holds.
        "crowdmask stage corrections --name {wildcards.dataset:q} --images {input.images:q} --made {input.made:q}"
        " --masks {input.masks:q} --edits {input.edits:q} --truth {input.truth:q} --folder {params.folder:q}"
        " --root {params.root:q} --settings {params.settings:q} --page {output.page:q}"
        " --output {output.table:q} > {log:q} 2>&1"
