"""Curves of a training: a CSV with one row an epoch, TensorBoard where it is installed, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from crowdmask.errors import DataError
from crowdmask.files import reading, replacing

VALIDATION = "val_"
"""Beginning of the columns that a validation gave."""

_WAY_OUT = "Delete the file: the training goes on, and its log begins with the next epoch."


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of a log; none where there is no file.

    Raises:
        DataError: not a log of epochs.
    """
    if not path.exists():
        return []
    try:
        with reading(path, _WAY_OUT), open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(path, f"is no CSV ({error})", _WAY_OUT) from None
    for number, row in enumerate(rows):
        if None in row or None in row.values() or not (row.get("epoch") or "").isdecimal():
            raise DataError(path, "has too few or too many values, or no number of an epoch", _WAY_OUT, number)
    return rows


def log_epoch(path: Path, epoch: int, values: Mapping[str, float]) -> None:
    """Write the row of an epoch after those of the epochs before it; rows from that epoch on are replaced.

    Columns keep the order in which they came; one that comes later (a validation, a term that is taught from some
    epoch on) is added behind and empty in the rows before. Numbers are written so that they read back as they were.

    Args:
        path: CSV file.
        epoch: From 1.
        values: Of the other columns.

    Raises:
        DataError: the file that is there is not a log, or cannot be replaced.
    """
    rows = [row for row in read_log(path) if int(row["epoch"]) < epoch]
    rows.append({"epoch": str(epoch), **{name: repr(float(value)) for name, value in values.items()}})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise DataError(path, f"cannot be written ({error.strerror})", "Make room there and run again.") from None


@contextmanager
def board(folder: Path, done: int, wanted: bool = True) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Yield a function of epoch and values that writes them for TensorBoard, or does nothing where that is missing.

    Args:
        folder: Of the event files.
        done: Epochs that are done; what was written of later ones is hidden.
        wanted: False = do nothing.
    """
    if not wanted or find_spec("tensorboard") is None:
        yield lambda epoch, values: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=done + 1) as writer:

        def write(epoch: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                tag = f"validation/{name.removeprefix(VALIDATION)}" if name.startswith(VALIDATION) else f"train/{name}"
                writer.add_scalar(tag, value, epoch)
            writer.flush()

        yield write


def draw(log: Path, picture: Path) -> bool:
    """Draw the curves of a log, one panel a column; False where Matplotlib is not installed.

    Args:
        log: CSV of `log_epoch`.
        picture: .svg or .png to write.

    Raises:
        DataError: the log is damaged or has no epochs.
    """
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    rows = read_log(log)
    if not rows:
        raise DataError(log, "has no epochs to draw", "Train for one epoch first.")
    names = [name for name in rows[0] if name != "epoch"]
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(4 * across, 2.4 * down), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(down, across, place + 1)
        known = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
        axes.plot(*zip(*known, strict=True), marker="." if len(known) < 50 else None, linewidth=1)
        axes.set_title(name, fontsize="medium")
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    with replacing(picture) as temporary:
        figure.savefig(temporary)
    return True
