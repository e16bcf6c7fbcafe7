# Stage exclude: SAM's mask within the nearest-neighbour exclusion circle, one owner a pixel.
# Reads `images` and `segment` tables, writes one `masks` table a batch. CPU only.


rule exclude:
    input:
        images="results/{dataset}/datasets/{split}/{batch}.parquet",
        segment="results/{dataset}/segment/{split}/{batch}.parquet",
    output:
        "results/{dataset}/exclude/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/exclude/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/exclude/{split}/{batch}.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=minutes(0.2),
    params:
        settings=stage_settings("exclude"),
    shell:
        "crowdmask stage exclude --images {input.images:q} --segment {input.segment:q}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"
