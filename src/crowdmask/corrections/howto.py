"""The README.txt of an export: what to do with it in the tool, step by step."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import PurePosixPath

from crowdmask.corrections.exchange.base import LABEL, POINT_ID
from crowdmask.corrections.exchange.record import Record

_STEPS = {
    "coco": (
        "Load the pictures of images/ and the COCO file into your tool (COCO 1.0, instances).",
        f"Each annotation carries its head as `{POINT_ID}`. A tool that drops it does no harm, as long as it keeps the "
        "file names of the pictures: heads are then found by their place.",
        "Save, or export from the tool, as COCO instances: polygons or run lengths, `iscrowd` 0 or 1, all are read.",
    ),
    "cvat": (
        "Make a task (or a project with a task). Under labels choose Raw and paste the content of labels.json.",
        "Upload all files of images/ to it.",
        "In the task: Actions, Upload annotations, format `CVAT 1.1`, the XML file listed above. (For format "
        "`COCO 1.0`: an export made by --to coco.)",
        "Correct with the polygon, brush and eraser tools. An AI tool's mask is fine too.",
        "Save. Actions, Export task dataset, format `CVAT for images 1.1`, without the images.",
    ),
    "labelme": (
        "Start labelme on the folder images/ (File, Open Dir): each picture has its JSON file beside it.",
        "Heads are masks, which labelme shows but does not bend: draw the right outline as a polygon (or with the AI "
        "mask tool) and delete the mask. Give the new shape the mask's group id, or leave it empty: the head is then "
        "found by its place. A head of several parts is several polygons of one group id.",
        "Save (File, Save Automatically spares you the question). The JSON files themselves are what comes back.",
    ),
    "label-studio": (
        "Start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT set to the full path of this folder.",
        "Make a project. Settings, Labeling Interface, Code: paste the content of label_config.xml. Settings, Cloud "
        "Storage: add images/ as source storage of the type Local files, so that the pictures may be shown; do not "
        "sync it.",
        "Import the tasks, the JSON file listed above (all of them, if there are several).",
        "Open a task. The masks are a prediction: copy it to an annotation, correct that with brush and eraser, and "
        "submit it. What is not submitted does not count.",
        "Export, format `JSON` (the full one; JSON-MIN and COCO lose holes and fragments).",
    ),
    "label-map": (
        "Each picture of images/ has a 16-bit grey PNG of the same name and size: 0 is background, every other value "
        f"is one head, its {POINT_ID} plus 1.",
        "Paint over it in any editor that keeps 16 bits and sharp edges (GIMP: pencil, not brush; Fiji). Give a head "
        "that is missing a value that the picture does not have yet; paint a wrong head over with 0.",
        "Save as 16-bit grey PNG under the same name. No scaling, no smoothing, no colours.",
    ),
}


def text(record: Record, files: Sequence[str]) -> str:
    """The README.txt of an export.

    Args:
        record: What is handed out.
        files: Files beside the pictures, relative to the folder.
    """
    masks = sum(len(task.heads) for task in record.tasks)
    cropped = len({(task.split, task.image_id) for task in record.tasks}) < len(record.tasks)
    steps = list(_STEPS[record.tool])
    steps.append(
        f"In the folder of the project: crowdmask corrections import {record.dataset} FILE\n"
        "with what the tool saved: a file, several, a folder, or a zip of them. --dry-run shows what would change."
    )
    parts = [
        f"{record.dataset}: {len(record.tasks)} pictures with {masks} masks, for correction ({record.tool}, export "
        f"{record.tag}, {record.time})",
        "What is in this folder\n----------------------",
        _list(["images/: the pictures", "tasks.csv: one line a picture", *_few(files)]),
        "What to do\n----------",
        "\n".join(_wrapped(f"{number}. ", step) for number, step in enumerate(steps, 1)),
        "What you may do\n---------------",
        _list(
            [
                "Change a shape, delete one (there is no head), draw a new one (a head without a shape). Every shape "
                f"is a head; the label is `{LABEL}`.",
                "Holes and several parts are fine. One head stays one shape.",
                "A shape that you do not touch stays as it is, pixel by pixel, however the tool saves it.",
                "Bring back whole pictures: a shape that a picture does not have any more counts as deleted. Pictures "
                "that you do not bring back stay as they are.",
                f"Do not touch the names and sizes of the pictures, nor `{POINT_ID}` of a shape. Do not copy and paste "
                "shapes between heads: the copy would carry the other's id.",
                "If two people work on one picture, each brings back a file of their own.",
            ]
        ),
    ]
    if cropped:
        parts += [
            "Crops\n-----",
            "Images with many heads come as several pictures that overlap; -x320y0 or the like in the name is where "
            "in the image one begins. Work in the bright part. What is dark is the bright part of another picture: "
            "draw no new heads whose middle lies there, though you may follow a shape into it.",
        ]
    return "\n\n".join(part if "\n" in part else _wrapped("", part) for part in parts) + "\n"


def _few(files: Sequence[str]) -> list[str]:
    """Names of files, many of a kind in one folder as one line."""
    kinds: dict[str, list[str]] = {}
    for name in files:
        path = PurePosixPath(name)
        kinds.setdefault((path.parent / f"*{path.suffix}").as_posix(), []).append(name)
    lines: list[str] = []
    for kind, names in kinds.items():
        lines += names if len(names) <= 3 else [f"{kind}: {len(names)} files"]
    return lines


def _list(items: Sequence[str]) -> str:
    return "\n".join(_wrapped("- ", item) for item in items)


def _wrapped(mark: str, text: str) -> str:
    """Text of at most 100 characters a line, the further ones under the first word."""
    indent = " " * len(mark)
    lines = [textwrap.fill(line, 100, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                           break_on_hyphens=False) for line in text.splitlines()]  # fmt: skip
    return mark + "\n".join(lines)[len(mark) :]
