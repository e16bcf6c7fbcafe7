# The first page of a data set's results: counts, links to its other pages, settings in force, versions. Ask for it to
# have all pages made, and for `snakemake --report` to have something to show. Reads `images` and merged `masks` tables.
# CPU only.


rule overview:
    input:
        images=every_batch("datasets"),
        masks=every_batch("merge"),
        pages=pages_of,
    output:
        report(
            "results/{dataset}/index.html",
            caption="../report/overview.rst",
            category="{dataset}",
            subcategory="overview",
            labels={"what": "counts, settings, versions"},
        ),
    log:
        "results/{dataset}/logs/overview.log",
    benchmark:
        "results/{dataset}/benchmarks/overview.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        settings=stage_settings("overview"),
    shell:
        "crowdmask stage overview --name {wildcards.dataset:q} --images {input.images:q} --masks {input.masks:q}"
        " --pages {input.pages:q} --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"
