from snakemake.utils import min_version

min_version("9.19")


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/splits.smk"
include: "workflow/rules/superpixels.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/exclude.smk"
include: "workflow/rules/merge.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/formats.smk"
include: "workflow/rules/corrections.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/review.smk"
include: "workflow/rules/ablation_common.smk"
include: "workflow/rules/ablate.smk"
include: "workflow/rules/overview.smk"
include: "workflow/rules/train_sam.smk"


# Without a target, and as `snakemake demo`: the rendered crowds that come with the project.
rule demo:
    default_target: True
    input:
        "results/demo/masks.json",
        "results/demo/index.html",
