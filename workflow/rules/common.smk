# Helpers of the rules: the checked configuration, image lists, and what each rule reads.

import re
import sys
from functools import cache
from pathlib import Path

from snakemake.utils import validate

from crowdmask import config as settings_module
from crowdmask import gpu, stages
from crowdmask.audit import VERSION as audit_version
from crowdmask.audit.listing import entry_text, existing_files, identity, listing
from crowdmask.datasets import choosing, protocols, reader_for
from crowdmask.datasets.base import batch_holding, batches_of
from crowdmask.errors import CrowdmaskError
from crowdmask.masks import checkpoints


def stop(message):
    """End the run with this message.

    Not a WorkflowError: where the file that was asked for is there from an earlier run, Snakemake takes one for
    "nobody makes this file", says nothing, and calls the old file up to date.
    """
    raise SystemExit(f"\ncrowdmask: error: {message}")


# Snakemake gives types to the top level of --config only.
config = settings_module.typed(config, workflow.config_settings.config)
try:
    CONFIG = settings_module.load(config)
except CrowdmaskError as error:
    stop(error)
validate(config, "../schemas/config.schema.json", set_default=False)

# Official file names -> models.
CHECKPOINTS = {name: model for model, (name, _) in checkpoints.OFFICIAL.items()}


# Once more at the end, where it is seen: between them and here are the commands of every failed job.
onerror:
    said = [
        Path(path).read_text(encoding="utf-8", errors="replace")
        for path in ([log] if isinstance(log, str) else log)
    ]
    found = re.findall(r"^crowdmask: error: .*", "\n".join(said), re.MULTILINE)
    if found:
        print("", *dict.fromkeys(found), "", sep="\n", file=sys.stderr)


wildcard_constraints:
    dataset=settings_module.NAME.strip("^$"),  # any: `reader` says which there are
    split="[^/]+",
    batch="[^/]+",
    image_id="[^/]+",


@cache
def reader(dataset):
    if dataset not in CONFIG.datasets:
        known = ", ".join(CONFIG.datasets) or "none"
        stop(
            f"no data set '{dataset}' in the configuration; known: {known}. "
            "Correct the name, or add the data set in a file given with --configfile."
        )
    return reader_for(dataset, CONFIG.datasets[dataset], "results")


@cache
def batches(dataset):
    """{(split, batch): images}; from folder listings, the first time that a target needs this data set."""
    try:
        return batches_of(reader(dataset).list_images(), CONFIG.batches)
    except CrowdmaskError as error:
        stop(error)


def images_of(wildcards):
    """Images of a batch; a batch that does not exist is a mistake in the target's name."""
    found = batches(wildcards.dataset).get((wildcards.split, wildcards.batch))
    if found is None:
        stop(
            f"data set {wildcards.dataset}: no batch {wildcards.split}/{wildcards.batch}"
        )
    return found


def source_files(wildcards):
    root = Path(reader(wildcards.dataset).root)
    return [
        root / name
        for ref in images_of(wildcards)
        for name in (ref.image, ref.annotation)
    ]


def every_batch(stage, suffix=".parquet"):
    """Input function: this stage's table of every batch of the data set."""

    def paths(wildcards):
        name = wildcards.dataset
        return [
            f"results/{name}/{stage}/{split}/{batch}{suffix}"
            for split, batch in batches(name)
        ]

    return paths


def batches_of_split(stage):
    """Input function: this stage's table of every batch of one split."""

    def paths(wildcards):
        name, split = wildcards.dataset, wildcards.split
        found = [batch for known, batch in batches(name) if known == split]
        if not found:
            known = ", ".join(dict.fromkeys(known for known, _ in batches(name)))
            stop(f"data set {name}: no split {split}; it has: {known}")
        return [f"results/{name}/{stage}/{split}/{batch}.parquet" for batch in found]

    return paths


def lists_of(wildcards):
    """List files of the data set's protocols."""
    reader(wildcards.dataset)
    paths = protocols.list_files(CONFIG.datasets[wildcards.dataset].protocols)
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        stop(
            f"{missing[0]}: no such list, which datasets.{wildcards.dataset}.protocols names. Correct the path, "
            "which is relative to the working directory."
        )
    return paths


def names_of_images(wildcards):
    """Hash of the names of all images: one that comes or goes makes the splits anew."""
    refs = [ref for refs in batches(wildcards.dataset).values() for ref in refs]
    try:
        return choosing.digest(refs, reader(wildcards.dataset).unlabelled())
    except CrowdmaskError as error:
        stop(error)


def with_truth(paths):
    """Input function that refuses data sets without true masks."""

    def checked(wildcards):
        reader(wildcards.dataset)
        if not stages.has_truth(CONFIG, wildcards.dataset):
            stop(
                f"data set {wildcards.dataset} has no true masks: it cannot be evaluated"
            )
        return paths(wildcards)

    return checked


def truth_if_any(wildcards):
    """Truth tables of every batch, where the data set has true masks."""
    reader(wildcards.dataset)
    has = stages.has_truth(CONFIG, wildcards.dataset)
    return every_batch("truth")(wildcards) if has else []


def stage_settings(stage):
    """Param function: what this stage's result depends on, as text."""

    def text(wildcards):
        reader(wildcards.dataset)
        return stages.settings(CONFIG, wildcards.dataset, stage)

    return text


def settings_of_format(wildcards):
    """What a file of a format depends on; COCO is that of the whole data set, for one split."""
    return stage_settings("export" if wildcards.format == "coco" else "formats")(
        wildcards
    )


def selection(wildcards, input):
    """The data set's entry, with which a job finds its images again.

    Takes `input`, so that Snakemake counts it as following from that: leaving out one image, or adding one, changes the
    entry, but runs only batches again whose files are others.
    """
    entry = CONFIG.datasets[wildcards.dataset]
    return settings_module.canonical(
        entry.model_dump(
            mode="json",
            exclude=set(settings_module.SECTIONS) | {"preset", "protocols"},
        )
    )


def root_of(wildcards, input):
    """Where the images lie; takes `input`, so that a moved folder does not count as another setting."""
    return reader(wildcards.dataset).root


def sam_settings(wildcards):
    return settings_module.section_for(CONFIG, wildcards.dataset, "sam")


def sam_memory(settings):
    return 3000 if settings.model == "small" else 12000


def checkpoint_of(wildcards):
    return checkpoint_file(sam_settings(wildcards))


def checkpoint_file(settings):
    """The checkpoint file, or nothing for the weights that ship, which the settings know by their hash."""
    if settings.model == "small" and not settings.checkpoint:
        return []
    try:
        path = checkpoints.path_of(settings)
    except CrowdmaskError as error:
        stop(error)
    # Absolute, so that nothing here makes it. Asking for masks must not train anything, and results/train_sam is used as it
    # is, also without the settings that it was trained with.
    return path.absolute() if settings.checkpoint else path


def corrections_of(wildcards):
    """Edit files that exist now for the images of a batch."""
    folder = Path(CONFIG.corrections.folder, wildcards.dataset)
    paths = [
        folder / ref.split / f"{ref.image_id}.json" for ref in images_of(wildcards)
    ]
    return [path for path in paths if path.is_file()]


def all_corrections(wildcards):
    """Edit files that exist now for any image of the data set."""
    folder = Path(CONFIG.corrections.folder, wildcards.dataset)
    paths = [
        folder / ref.split / f"{ref.image_id}.json"
        for refs in batches(wildcards.dataset).values()
        for ref in refs
    ]
    return [path for path in paths if path.is_file()]


def folder_of_edits(wildcards, input):
    """Of the data set's edit files; takes `input`, so that a moved folder does not count as another setting."""
    return Path(CONFIG.corrections.folder, wildcards.dataset)


def edits_of_all(wildcards):
    """Edit tables of every batch; a correction that no image would take is an error, not lost."""
    known = {
        (ref.split, ref.image_id)
        for refs in batches(wildcards.dataset).values()
        for ref in refs
    }
    folder = Path(CONFIG.corrections.folder, wildcards.dataset)
    for path in sorted(folder.rglob("*.json")):
        if (
            path.relative_to(folder).parts != (path.parent.name, path.name)
            or (path.parent.name, path.stem) not in known
        ):
            stop(
                f"{path}: the data set {wildcards.dataset} has no such image. Name the file "
                f"{folder}/SPLIT/IMAGE_ID.json (see: crowdmask datasets {wildcards.dataset}), or move it away."
            )
    return every_batch("edits")(wildcards)


def pictures_of(wildcards):
    """A few images of each split, evenly spread."""
    splits = {}
    for refs in batches(wildcards.dataset).values():
        for ref in refs:
            splits.setdefault(ref.split, []).append(ref.image_id)
    number = settings_module.section_for(CONFIG, wildcards.dataset, "export").overlays
    chosen = []
    for split, ids in splits.items():
        ids = sorted(ids)
        step = max(1, len(ids) / max(1, number))
        chosen += [(split, ids[int(k * step)]) for k in range(min(number, len(ids)))]
    return [
        f"results/{wildcards.dataset}/overlays/{split}/{image_id}.png"
        for split, image_id in chosen
    ]


def pages_of(wildcards):
    """Pages of a data set that there are, or can be made."""
    name = wildcards.dataset
    pages = ["overlays/index.html", "review.html", "audit.html"]
    if stages.has_truth(CONFIG, name):
        pages.append("evaluation.html")
        if CONFIG.ablation.variants or CONFIG.ablation.baselines:
            pages.append("ablation/table.html")
    if all_corrections(wildcards):
        pages.append("corrections.html")
    return [f"results/{name}/{page}" for page in pages]


def batch_table(stage):
    """Input function: this stage's table of the batch that holds one image."""

    def path(wildcards):
        name, split = wildcards.dataset, wildcards.split
        batch = batch_holding(batches(name), split, wildcards.image_id)
        if batch is not None:
            return f"results/{name}/{stage}/{split}/{batch}.parquet"
        stop(f"data set {name}: no image {wildcards.split}/{wildcards.image_id}")

    return path


@cache
def gpus_here():
    return gpu.count()


def gpus(wildcards):
    """GPUs that a SAM or training job asks for."""
    return min(1, gpus_here()) if CONFIG.gpu == "auto" else CONFIG.gpu


def minutes(per_image):
    """Resource function: run time of a batch, doubled at each further attempt."""
    return (
        lambda wildcards, attempt: max(10, int(per_image * len(images_of(wildcards))))
        * attempt
    )


def images_in(wildcards):
    """Number of images of a data set."""
    return sum(map(len, batches(wildcards.dataset).values()))


def training_tables(stage):
    """Input function: tables of every batch of the data sets to train on."""

    def paths(wildcards):
        names = CONFIG.train_sam.datasets
        unknown = sorted(set(names) - set(CONFIG.datasets))
        if unknown or not names:
            fault = (
                f"unknown data set {unknown[0]}"
                if unknown
                else "name at least one data set"
            )
            known = ", ".join(
                name for name in CONFIG.datasets if stages.has_truth(CONFIG, name)
            )
            stop(f"train_sam.datasets: {fault}; known with true masks: {known}")
        for name in names:
            if not stages.has_truth(CONFIG, name):
                stop(f"train_sam.datasets: {name} has no true masks")
        return [
            f"results/{n}/{stage}/{split}/{batch}.parquet"
            for n in names
            for split, batch in batches(n)
        ]

    return paths


def training_roots(wildcards, input):
    """For each batch to train on: where its images lie."""
    found = []
    for name in CONFIG.train_sam.datasets:
        exif = getattr(CONFIG.datasets[name], "exif", "stored")
        place = settings_module.canonical(
            {"dataset": name, "root": reader(name).root, "exif": exif}
        )
        found += [place] * len(batches(name))
    return found


def training_settings(wildcards):
    return settings_module.canonical(
        {
            "version": stages.VERSIONS["train_sam"],
            **{
                name: getattr(CONFIG, name).model_dump(mode="json")
                for name in ("train_sam", "tiles", "prompt")
            },
        }
    )


@cache
def audit_list(dataset):
    """The list of a data set with its faults."""
    try:
        return listing(reader(dataset))
    except CrowdmaskError as error:
        stop(error)


@cache
def audited_files(dataset):
    """Files that the audit reads; of a folder those that are there, of rendered scenes all, which makes them."""
    known = reader(dataset)
    if isinstance(CONFIG.datasets[dataset], settings_module.FolderDataset):
        return existing_files(known, audit_list(dataset))
    return [
        Path(known.root, name)
        for ref in audit_list(dataset).refs
        for name in (ref.image, ref.annotation)
    ]


def audit_settings(wildcards):
    """How files are read, and the list: without it, an orphan that is taken away would stay in the report."""
    name = wildcards.dataset
    return f"{audit_version} {identity(audit_list(name))} {entry_text(CONFIG.datasets[name])}"
