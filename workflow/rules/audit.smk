# The audit of a data set: everything odd in its files, annotations and numbers, as a page and as JSON.
# Reads image and annotation files as downloaded, also where the list has faults at which every other rule stops. What
# it has read before it does not read again (audit-cache). CPU only.


rule audit:
    input:
        lambda wildcards: audited_files(wildcards.dataset),
    output:
        page=report(
            "results/{dataset}/audit.html",
            caption="../report/audit.rst",
            category="{dataset}",
            subcategory="data",
            labels={"what": "audit"},
        ),
        findings="results/{dataset}/audit.json",
    log:
        "results/{dataset}/logs/audit.log",
    benchmark:
        "results/{dataset}/benchmarks/audit.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: 4
    resources:
        mem_mb=4000,
        runtime=lambda wildcards, attempt: max(
            30, len(audited_files(wildcards.dataset)) // 100
        )
        * attempt,
    params:
        settings=audit_settings,
        selection=selection,
    shell:
        "crowdmask datasets audit {wildcards.dataset:q} --report-only --jobs {threads:q}"
        " --selection {params.selection:q} > {log:q} 2>&1"
