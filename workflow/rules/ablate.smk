# Ablation: variants of the method (`ablation.variants`) and other masks from the same points (`ablation.baselines`),
# measured on true masks. Stages that a variant changes run again, into results/{dataset}/ablation/{stage}/{hash}; the
# hash is made from the settings of the stage and of those before it, so that variants share what they have in common,
# and what a variant does not change is the data set's ordinary table. Writes one `measures` table a batch and row, and
# the table of all rows with its figures. GPU as in segment.smk.


wildcard_constraints:
    hash="[0-9a-f]{12}",
    masks="[0-9a-z_]+",


use rule superpixels as ablation_superpixels with:
    output:
        "results/{dataset}/ablation/superpixels/{hash}/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/ablation/superpixels/{hash}/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/ablation/superpixels/{hash}/{split}/{batch}.tsv"
    params:
        settings=variant_settings("superpixels"),
        root=root_of,


use rule segment as ablation_segment with:
    input:
        images="results/{dataset}/datasets/{split}/{batch}.parquet",
        superpixels=variant_table("superpixels", of="segment"),
        checkpoint=lambda wildcards: checkpoint_file(variant_sam(wildcards)),
    output:
        "results/{dataset}/ablation/segment/{hash}/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/ablation/segment/{hash}/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/ablation/segment/{hash}/{split}/{batch}.tsv"
    threads: lambda wildcards: variant_sam(wildcards).threads
    resources:
        mem_mb=lambda wildcards: sam_memory(variant_sam(wildcards)),
        runtime=minutes(5),
        gpu=gpus,
    params:
        settings=variant_settings("segment"),
        root=root_of,


use rule exclude as ablation_exclude with:
    input:
        images="results/{dataset}/datasets/{split}/{batch}.parquet",
        segment=variant_table("segment", of="exclude"),
    output:
        "results/{dataset}/ablation/exclude/{hash}/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/ablation/exclude/{hash}/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/ablation/exclude/{hash}/{split}/{batch}.tsv"
    params:
        settings=variant_settings("exclude"),


rule candidates:
    input:
        images="results/{dataset}/datasets/{split}/{batch}.parquet",
        checkpoint=checkpoint_of,
    output:
        "results/{dataset}/ablation/candidates/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/ablation/candidates/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/ablation/candidates/{split}/{batch}.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: lambda wildcards: sam_settings(wildcards).threads
    resources:
        mem_mb=lambda wildcards: sam_memory(sam_settings(wildcards)),
        runtime=minutes(5),
        gpu=gpus,
    params:
        settings=stage_settings("candidates"),
        root=root_of,
    shell:
        "crowdmask stage candidates --images {input.images:q} --root {params.root:q}"
        " --checkpoint {input.checkpoint:q} --gpu {resources.gpu}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule baseline:
    input:
        images="results/{dataset}/datasets/{split}/{batch}.parquet",
        superpixels="results/{dataset}/superpixels/{split}/{batch}.parquet",
        truth=with_truth(
            lambda wildcards: "results/{dataset}/truth/{split}/{batch}.parquet"
        ),
        candidates=candidates_of,
    output:
        "results/{dataset}/ablation/baseline/{baseline}/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/ablation/baseline/{baseline}/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/ablation/baseline/{baseline}/{split}/{batch}.tsv"
    wildcard_constraints:
        baseline="|".join(settings_module.BASELINES),
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=minutes(1),
    params:
        settings=stage_settings("baseline"),
        root=root_of,
    shell:
        "crowdmask stage baseline --name {wildcards.baseline:q} --images {input.images:q}"
        " --superpixels {input.superpixels:q} --truth {input.truth:q} --candidates {input.candidates:q}"
        " --root {params.root:q} --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule measures:
    input:
        images="results/{dataset}/datasets/{split}/{batch}.parquet",
        masks=masks_to_measure,
        truth=with_truth(
            lambda wildcards: "results/{dataset}/truth/{split}/{batch}.parquet"
        ),
    output:
        "results/{dataset}/ablation/measures/{masks}/{split}/{batch}.parquet",
    log:
        "results/{dataset}/logs/ablation/measures/{masks}/{split}/{batch}.log",
    benchmark:
        "results/{dataset}/benchmarks/ablation/measures/{masks}/{split}/{batch}.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=minutes(0.2),
    params:
        settings=stage_settings("measures"),
    shell:
        "crowdmask stage measures --images {input.images:q} --masks {input.masks:q} --truth {input.truth:q}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule ablation:
    input:
        with_truth(all_measures),
    output:
        table="results/{dataset}/ablation/table.csv",
        text="results/{dataset}/ablation/table.md",
        page=report(
            "results/{dataset}/ablation/table.html",
            caption="../report/ablation.rst",
            category="{dataset}",
            subcategory="ablation",
            labels={"what": "all rows"},
        ),
        sweeps=report(
            "results/{dataset}/ablation/sweeps.svg",
            caption="../report/ablation.rst",
            category="{dataset}",
            subcategory="ablation",
            labels={"what": "sweeps"},
        ),
        prompts=report(
            "results/{dataset}/ablation/prompts.svg",
            caption="../report/ablation.rst",
            category="{dataset}",
            subcategory="ablation",
            labels={"what": "prompts and constraints"},
        ),
        pictures=multiext("results/{dataset}/ablation/", "sweeps.png", "prompts.png"),
    log:
        "results/{dataset}/logs/ablation/table.log",
    benchmark:
        "results/{dataset}/benchmarks/ablation/table.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        settings=ablation_settings,
    shell:
        "crowdmask stage ablation --name {wildcards.dataset:q} --settings {params.settings:q}"
        " --output {output.table:q} > {log:q} 2>&1"
