# Stage evaluate: masks against true masks, with baselines from the same points.
# Reads `images`, merged `masks`, `truth` and `superpixels` tables of all batches and the image files (for the
# watershed), writes one JSON file. CPU only.


rule evaluate:
    input:
        images=with_truth(every_batch("datasets")),
        masks=with_truth(every_batch("merge")),
        truth=with_truth(every_batch("truth")),
        superpixels=with_truth(every_batch("superpixels")),
    output:
        "results/{dataset}/evaluation.json",
    log:
        "results/{dataset}/logs/evaluate.log",
    benchmark:
        "results/{dataset}/benchmarks/evaluate.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=lambda wildcards, attempt: max(60, images_in(wildcards) // 10) * attempt,
    params:
        settings=stage_settings("evaluate"),
        root=root_of,
    shell:
        "crowdmask stage evaluate --images {input.images:q} --masks {input.masks:q} --truth {input.truth:q}"
        " --superpixels {input.superpixels:q} --root {params.root:q}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"
