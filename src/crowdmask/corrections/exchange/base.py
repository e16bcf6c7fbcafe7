"""What all formats share: what goes out to a tool, and what comes back from it.

Every format module has

- `TOOL`: its name for `--to`;
- `write(folder, record) -> list[Path]`: annotation files for the pictures that already lie in `folder/images`, ready to
  be loaded by the tool; ids go where the tool keeps them best;
- `belongs(file) -> bool`: whether a file is of this format, by its content;
- `read(file) -> Iterator[Picture]`: pictures and shapes of one file, whatever the tool did to it. Nothing is allocated
  for a shape before its numbers are checked.

Coordinates here are those of the handed-out picture (a crop has its own), pixel centres at integers, (x, y).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from crowdmask.masks.rle import Window

POINT_ID = "point_id"
"""Name of the attribute, or property, that carries the id of a head."""
LABEL = "head"
"""Name of the only label (class) that is written; on the way back any label will do."""

MAX_SIDE = 65_535
"""Largest height and width of a picture, pixels."""
MAX_PIXELS = 1 << 28
"""Largest picture."""
MAX_SHAPES = 200_000
"""Most shapes of one picture."""
MAX_POINTS = 100_000
"""Most polygon corners of one shape."""
MAX_COORDINATE = 1e6
"""Largest absolute polygon coordinate, pixels."""


@dataclass(frozen=True)
class File:
    """A file that somebody brings back; members of a zip are files of their own.

    Attributes:
        name: For messages: the path, for a member `archive.zip:folder/member.json`.
        content: All bytes.
        sha256: Of the file as given (for a member that of its archive): the provenance of its edits.
    """

    name: str
    content: bytes
    sha256: str

    @property
    def suffix(self) -> str:
        """Lower-case ending of the name, with the dot."""
        return PurePosixPath(self.name).suffix.lower()

    @property
    def stem(self) -> str:
        """Name without folders, archive and ending."""
        return PurePosixPath(self.name.rpartition(":")[2]).stem


@dataclass(frozen=True)
class Shape:
    """One outline or mask.

    Attributes:
        where: Place in its file for messages, such as `annotation 12`.
        readings: Its pixels, cut to the picture, tight. A mask has one reading. An outline has one by the tool's own
            convention first, then those of other conventions that programs which re-trace masks write into the same
            format (pixel corners or pixel centres at integers). Never empty: a shape without a pixel has one reading of
            size 0 x 0.
        exact: Pixel by pixel (run lengths, bitmap); False = an outline, which may differ by tracing noise.
        point_id: Id that came back; None = lost, or a new shape.
        point_xy: Head point, where the file says one.
    """

    where: str
    readings: tuple[Window, ...]
    exact: bool
    point_id: int | None = None
    point_xy: tuple[float, float] | None = None


@dataclass(frozen=True)
class Picture:
    """One picture of a tool's file.

    Attributes:
        where: Place in its file for messages, such as `image 3`; empty where the file is about one picture.
        name: File name of the picture as the tool tells it, folders included.
        height: As the tool tells it, pixels.
        width: As the tool tells it, pixels.
        shapes: In file order.
        tool: Program and version, for the provenance, such as `CVAT 1.1`.
        author: Who drew, where the file says it.
        time: When, ISO 8601, where the file says it.
        media: The picture's own bytes, where the file holds them.
    """

    where: str
    name: str
    height: int
    width: int
    shapes: Sequence[Shape]
    tool: str
    author: str | None = None
    time: str | None = None
    media: bytes | None = None
