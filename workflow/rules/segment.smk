# Stage segment: SAM's mask of each point, in a window around it.
# Reads `images` and `superpixels` tables, the image files and a verified checkpoint, writes one `segment` table a
# batch. One GPU where `gpu` says so, else one CPU core (two more threads read
# images and write run lengths meanwhile).


rule checkpoint:
    output:
        "checkpoints/{file}.pth",
    log:
        "results/logs/checkpoint/{file}.log",
    benchmark:
        "results/benchmarks/checkpoint/{file}.tsv"
    wildcard_constraints:
        file="|".join(CHECKPOINTS),
    localrule: True
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        model=lambda wildcards: CHECKPOINTS[wildcards.file],
    shell:
        "crowdmask stage checkpoint --model {params.model} --output {output:q} > {log:q} 2>&1"


rule segment:
    input:
        images="results/{dataset}/datasets/{split}/{batch}.parquet",
        superpixels="results/{dataset}/superpixels/{split}/{batch}.parquet",
        checkpoint=checkpoint_of,
    output:
        "results/{dataset}/segment/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/segment/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/segment/{split}/{batch}.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: lambda wildcards: sam_settings(wildcards).threads
    resources:
        mem_mb=lambda wildcards: sam_memory(sam_settings(wildcards)),
        runtime=minutes(5),
        gpu=gpus,
    params:
        settings=stage_settings("segment"),
        root=root_of,
    shell:
        "crowdmask stage segment --images {input.images:q} --superpixels {input.superpixels:q}"
        " --root {params.root:q} --checkpoint {input.checkpoint:q} --gpu {resources.gpu}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"
