# Stage review: which masks a person should look at, worst first, as a table and as a page of crops.
# Reads `images`, merged `masks`, `segment` and `superpixels` tables of all batches, `truth` tables where there are some
# (to say whether the score finds the bad masks), and the files of the images on the page. CPU only.


rule review:
    input:
        images=every_batch("datasets"),
        masks=every_batch("merge"),
        segment=every_batch("segment"),
        superpixels=every_batch("superpixels"),
        truth=truth_if_any,
    output:
        table="results/{dataset}/review.parquet",
        page=report(
            "results/{dataset}/review.html",
            caption="../report/review.rst",
            category="{dataset}",
            subcategory="masks",
            labels={"what": "worst first"},
        ),
        report="results/{dataset}/review.json",
    log:
        "results/{dataset}/logs/review.log",
    benchmark:
        "results/{dataset}/benchmarks/review.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=lambda wildcards, attempt: max(60, images_in(wildcards) // 20) * attempt,
    params:
        settings=stage_settings("review"),
        root=root_of,
    shell:
        "crowdmask stage review --name {wildcards.dataset:q} --images {input.images:q} --masks {input.masks:q}"
        " --segment {input.segment:q} --superpixels {input.superpixels:q} --truth {input.truth:q}"
        " --root {params.root:q} --settings {params.settings:q} --output {output.table:q} --page {output.page:q}"
        " --report {output.report:q} > {log:q} 2>&1"
