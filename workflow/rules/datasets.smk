# Stage datasets: official folders -> images and points.
# Reads image and annotation files as downloaded (or renders scenes), writes one `images` table a batch, and for data
# sets with true masks one `truth` table. CPU only.


rule render:
    output:
        image="results/{dataset}/render/{split}/scene-{index}.png",
        labels="results/{dataset}/render/{split}/scene-{index}.labels.png",
        points="results/{dataset}/render/{split}/scene-{index}.points.json",
    log:
        "results/{dataset}/logs/render/{split}/scene-{index}.log",
    benchmark:
        "results/{dataset}/benchmarks/render/{split}/scene-{index}.tsv"
    wildcard_constraints:
        index=r"\d+",
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        settings=stage_settings("render"),
    shell:
        "crowdmask stage render --index {wildcards.index} --settings {params.settings:q}"
        " --image {output.image:q} --labels {output.labels:q} --points {output.points:q} > {log:q} 2>&1"


rule datasets:
    input:
        source_files,
    output:
        "results/{dataset}/datasets/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/datasets/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/datasets/{split}/{batch}.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=minutes(0.1),
    params:
        settings=stage_settings("datasets"),
        selection=selection,
        batches=lambda wildcards, input: CONFIG.batches,
    shell:
        "crowdmask stage datasets --name {wildcards.dataset:q} --selection {params.selection:q}"
        " --split {wildcards.split:q} --batch {wildcards.batch:q} --batches {params.batches}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule truth:
    input:
        with_truth(source_files),
    output:
        "results/{dataset}/truth/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/truth/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/truth/{split}/{batch}.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=minutes(0.1),
    params:
        settings=stage_settings("truth"),
        selection=selection,
        batches=lambda wildcards, input: CONFIG.batches,
    shell:
        "crowdmask stage truth --name {wildcards.dataset:q} --selection {params.selection:q}"
        " --split {wildcards.split:q} --batch {wildcards.batch:q} --batches {params.batches}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"
