# Helpers of the ablation's rules: which variant makes a table, and which tables a variant reads.

from crowdmask.ablation import plan


def variant_of(stage, wildcards):
    """A variant that makes this table."""
    reader(wildcards.dataset)
    found = plan.variant_with(CONFIG, wildcards.dataset, stage, wildcards.hash)
    if found is None:
        stop(
            f"data set {wildcards.dataset}: no variant of the ablation has the {stage} table {wildcards.hash}. Ask for "
            f"results/{wildcards.dataset}/ablation/table.html instead."
        )
    return found


def variant_table(stage, of):
    """Input function: the table of `stage` that stage `of` of a variant reads."""

    def path(wildcards):
        name, variant = wildcards.dataset, variant_of(of, wildcards)
        folder = plan.folder(CONFIG, name, stage, variant)
        return f"{folder}/{wildcards.split}/{wildcards.batch}.parquet"

    return path


def variant_settings(stage):
    """Param function: what this stage's result depends on, as text."""
    return lambda wildcards: stages.settings(
        CONFIG, wildcards.dataset, stage, variant_of(stage, wildcards)
    )


def variant_sam(wildcards):
    return settings_module.section_for(
        CONFIG, wildcards.dataset, "sam", variant_of("segment", wildcards)
    )


def masks_to_measure(wildcards):
    """Masks of the data set's own settings, of a variant or of a baseline."""
    reader(wildcards.dataset)
    folder = plan.masks_folder(CONFIG, wildcards.dataset, wildcards.masks)
    if folder is None:
        stop(
            f"data set {wildcards.dataset}: the ablation has no masks {wildcards.masks}"
        )
    return f"{folder}/{wildcards.split}/{wildcards.batch}.parquet"


def candidates_of(wildcards):
    """SAM's masks without points, for the baselines that choose from them."""
    if not wildcards.baseline.startswith("smallest"):
        return []
    name, split, batch = wildcards.dataset, wildcards.split, wildcards.batch
    return f"results/{name}/ablation/candidates/{split}/{batch}.parquet"


def ablation_batches(wildcards):
    return [f"{split}/{batch}" for split, batch in batches(wildcards.dataset)]


def all_measures(wildcards):
    """Measures of every batch of every row."""
    name = wildcards.dataset
    folders = dict.fromkeys(row.masks for row in plan.rows(CONFIG, name))
    return [
        f"results/{name}/ablation/measures/{masks}/{batch}.parquet"
        for masks in folders
        for batch in ablation_batches(wildcards)
    ]


def ablation_settings(wildcards):
    name = wildcards.dataset
    reader(name)
    return settings_module.canonical(
        {
            "version": stages.VERSIONS["ablation"],
            "rows": [vars(row) for row in plan.rows(CONFIG, name)],
            "own": plan.varied(CONFIG, name),
            "batches": ablation_batches(wildcards),
            "samples": CONFIG.ablation.samples,
            "seed": CONFIG.ablation.seed,
        }
    )
