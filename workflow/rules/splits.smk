# Stage splits: which images are trained, validated and tested on, which are labelled, and the folds.
# Reads names of images and the list files of `datasets.NAME.protocols`, writes one JSON file a data set. CPU only.


rule splits:
    input:
        lists_of,
    output:
        "results/{dataset}/splits.json",
    log:
        "results/{dataset}/logs/splits.log",
    benchmark:
        "results/{dataset}/benchmarks/splits.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        settings=stage_settings("splits"),
        selection=selection,
        images=names_of_images,
    shell:
        "crowdmask stage splits --name {wildcards.dataset:q} --selection {params.selection:q}"
        " --images {params.images:q} --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"
