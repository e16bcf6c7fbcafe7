# Stage superpixels: the part of its SLIC superpixel that belongs to each point.
# Reads `images` tables and the image files that they name, writes one `superpixels` table a batch. CPU only.


rule superpixels:
    input:
        images="results/{dataset}/datasets/{split}/{batch}.parquet",
    output:
        "results/{dataset}/superpixels/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/superpixels/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/superpixels/{split}/{batch}.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=minutes(0.2),
    params:
        settings=stage_settings("superpixels"),
        root=root_of,
    shell:
        "crowdmask stage superpixels --images {input.images:q} --root {params.root:q}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"
