# Stage evaluate: masks against true masks, with baselines from the same points.
# Reads `images`, merged `masks`, `truth` and `superpixels` tables of all batches and the image files (for the
# watershed, and to show the worst images), writes JSON and one page. CPU only.


rule evaluate:
    input:
        images=with_truth(every_batch("datasets")),
        masks=with_truth(every_batch("merge")),
        truth=with_truth(every_batch("truth")),
        superpixels=with_truth(every_batch("superpixels")),
    output:
        report="results/{dataset}/evaluation.json",
        page=report(
            "results/{dataset}/evaluation.html",
            caption="../report/evaluation.rst",
            category="{dataset}",
            subcategory="measures",
            labels={"what": "against true masks"},
        ),
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
        "crowdmask stage evaluate --name {wildcards.dataset:q} --images {input.images:q} --masks {input.masks:q}"
        " --truth {input.truth:q} --superpixels {input.superpixels:q} --root {params.root:q}"
        " --settings {params.settings:q} --page {output.page:q} --output {output.report:q} > {log:q} 2>&1"
