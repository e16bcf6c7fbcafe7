# Helpers of the rules: the checked configuration, image lists, and what each rule reads.

from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from crowdmask import config as settings_module
from crowdmask import gpu, stages
from crowdmask.datasets import reader_for
from crowdmask.datasets.base import batches_of
from crowdmask.errors import CrowdmaskError
from crowdmask.masks import checkpoints

try:
    CONFIG = settings_module.load(config)
except CrowdmaskError as error:
    raise WorkflowError(str(error)) from None
validate(config, "../schemas/config.schema.json", set_default=False)

# Official file names -> models.
CHECKPOINTS = {name: model for model, (name, _) in checkpoints.OFFICIAL.items()}


wildcard_constraints:
    dataset="|".join(map(re.escape, CONFIG.datasets)) or "(?!)",
    split="[^/]+",
    batch="[^/]+",
    image_id="[^/]+",


@cache
def reader(dataset):
    return reader_for(dataset, CONFIG.datasets[dataset], "results")


@cache
def batches(dataset):
    """{(split, batch): images}; from folder listings, the first time that a target needs this data set."""
    try:
        return batches_of(reader(dataset).list_images(), CONFIG.batches)
    except CrowdmaskError as error:
        raise WorkflowError(str(error)) from None


def images_of(wildcards):
    """Images of a batch; a batch that does not exist is a mistake in the target's name."""
    found = batches(wildcards.dataset).get((wildcards.split, wildcards.batch))
    if found is None:
        raise WorkflowError(f"data set {wildcards.dataset}: no batch {wildcards.split}/{wildcards.batch}")
    return found


def source_files(wildcards):
    root = Path(reader(wildcards.dataset).root)
    return [root / name for ref in images_of(wildcards) for name in (ref.image, ref.annotation)]


def every_batch(stage, suffix=".parquet"):
    """Input function: this stage's table of every batch of the data set."""

    def paths(wildcards):
        name = wildcards.dataset
        return [f"results/{name}/{stage}/{split}/{batch}{suffix}" for split, batch in batches(name)]

    return paths


def with_truth(paths):
    """Input function that refuses data sets without true masks."""

    def checked(wildcards):
        if not stages.has_truth(CONFIG, wildcards.dataset):
            raise WorkflowError(f"data set {wildcards.dataset} has no true masks: it cannot be evaluated")
        return paths(wildcards)

    return checked


def stage_settings(stage):
    """Param function: what this stage's result depends on, as text."""
    return lambda wildcards: stages.settings(CONFIG, wildcards.dataset, stage)


def selection(wildcards):
    """The data set's entry, with which a job finds its images again."""
    entry = CONFIG.datasets[wildcards.dataset]
    return settings_module.canonical(entry.model_dump(mode="json", exclude=set(settings_module.SECTIONS) | {"preset"}))


def root_of(wildcards):
    return reader(wildcards.dataset).root


def sam_settings(wildcards):
    return settings_module.section_for(CONFIG, wildcards.dataset, "sam")


def checkpoint_of(wildcards):
    try:
        return checkpoints.path_of(sam_settings(wildcards))
    except CrowdmaskError as error:
        raise WorkflowError(str(error)) from None


def corrections_of(wildcards):
    """Edit files that exist now for the images of a batch."""
    folder = Path(CONFIG.corrections.folder, wildcards.dataset)
    paths = [folder / ref.split / f"{ref.image_id}.json" for ref in images_of(wildcards)]
    return [path for path in paths if path.is_file()]


def edits_of_all(wildcards):
    """Edit tables of every batch; a correction that no image would take is an error, not lost."""
    known = {(ref.split, ref.image_id) for refs in batches(wildcards.dataset).values() for ref in refs}
    folder = Path(CONFIG.corrections.folder, wildcards.dataset)
    for path in sorted(folder.rglob("*.json")):
        if path.relative_to(folder).parts != (path.parent.name, path.name) or (path.parent.name, path.stem) not in known:
            raise WorkflowError(
                f"{path}: the data set {wildcards.dataset} has no such image. Name the file "
                f"{folder}/SPLIT/IMAGE_ID.json (see: crowdmask datasets {wildcards.dataset}), or move it away."
            )
    return every_batch("edits")(wildcards)


def pictures_of(wildcards):
    """A few images of each split, evenly spread."""
    number = settings_module.section_for(CONFIG, wildcards.dataset, "export").overlays
    splits = {}
    for refs in batches(wildcards.dataset).values():
        for ref in refs:
            splits.setdefault(ref.split, []).append(ref.image_id)
    chosen = []
    for split, ids in splits.items():
        ids = sorted(ids)
        step = max(1, len(ids) / max(1, number))
        chosen += [(split, ids[int(k * step)]) for k in range(min(number, len(ids)))]
    return [f"results/{wildcards.dataset}/overlays/{split}/{image_id}.png" for split, image_id in chosen]


def batch_table(stage):
    """Input function: this stage's table of the batch that holds one image."""

    def path(wildcards):
        name = wildcards.dataset
        for (split, batch), refs in batches(name).items():
            if split == wildcards.split and any(ref.image_id == wildcards.image_id for ref in refs):
                return f"results/{name}/{stage}/{split}/{batch}.parquet"
        raise WorkflowError(f"data set {name}: no image {wildcards.split}/{wildcards.image_id}")

    return path


def gpus(wildcards):
    """GPUs that a SAM or training job asks for."""
    return min(1, gpu.count()) if CONFIG.gpu == "auto" else CONFIG.gpu


def minutes(per_image):
    """Resource function: run time of a batch, doubled at each further attempt."""
    return lambda wildcards, attempt: max(10, int(per_image * len(images_of(wildcards)))) * attempt


def training_tables(stage):
    """Input function: tables of every batch of the data sets to train on."""

    def paths(wildcards):
        names = CONFIG.train_sam.datasets
        unknown = sorted(set(names) - set(CONFIG.datasets))
        if unknown or not names:
            raise WorkflowError(
                f"train_sam.datasets: {'unknown data set ' + unknown[0] if unknown else 'name at least one data set'}"
                f"; known with true masks: {', '.join(n for n in CONFIG.datasets if stages.has_truth(CONFIG, n))}"
            )
        for name in names:
            if not stages.has_truth(CONFIG, name):
                raise WorkflowError(f"train_sam.datasets: {name} has no true masks")
        return [f"results/{n}/{stage}/{split}/{batch}.parquet" for n in names for split, batch in batches(n)]

    return paths


def training_roots(wildcards):
    """For each batch to train on: where its images lie."""
    found = []
    for name in CONFIG.train_sam.datasets:
        exif = getattr(CONFIG.datasets[name], "exif", "stored")
        place = settings_module.canonical({"dataset": name, "root": reader(name).root, "exif": exif})
        found += [place] * len(batches(name))
    return found


def training_settings(wildcards):
    return settings_module.canonical(
        {
            "version": stages.VERSIONS["train_sam"],
            "train_sam": CONFIG.train_sam,
            "tiles": CONFIG.tiles,
            "prompt": CONFIG.prompt,
        }
    )
