# Stage merge: people's corrections over the automatic masks.
# Reads `images` and `masks` tables and the edit files that exist for the images of the batch, writes one `masks` and
# one `edits` table a batch. CPU only.


rule merge:
    input:
        images="results/{dataset}/datasets/{split}/{batch}.parquet",
        masks="results/{dataset}/exclude/{split}/{batch}.parquet",
        edits=corrections_of,
    output:
        masks="results/{dataset}/merge/{split}/{batch}.parquet",
        edits="results/{dataset}/edits/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/merge/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/merge/{split}/{batch}.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=minutes(0.1),
    params:
        settings=stage_settings("merge"),
    shell:
        "crowdmask stage merge --images {input.images:q} --masks {input.masks:q} --edits {input.edits:q}"
        " --settings {params.settings:q} --output {output.masks:q} --edits-output {output.edits:q} > {log:q} 2>&1"
