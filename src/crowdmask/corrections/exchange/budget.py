"""What the shapes of foreign files may cost: charged before anything is drawn or allocated."""

from __future__ import annotations

import math

MAX_KEPT = 1 << 28
"""Most pixels of all windows of a picture together, all readings (bytes)."""
MAX_WORK = 1 << 30
"""Most drawing for all shapes of a file, beyond `FREE` each time; the unit is a pixel of a filled box (our choice)."""
FREE = 1 << 15
"""Drawing that does not count for that: a file of small heads may be as long as it likes (our choice), but"""
WORK_A_BYTE = 1000
"""all of it is paid by the bytes of the file: three times what outlines of heads of 200 pixels need (our choice)."""


class Budget:
    """What may still be drawn and kept for one picture, or for the pictures of a file one after the other.

    Args:
        size: Of the file, bytes.
        work: What may be drawn, for all pictures together.
        kept: Pixels of windows that may be kept, for each picture.
    """

    def __init__(self, size: int = 0, work: int = MAX_WORK, kept: int = MAX_KEPT) -> None:
        self._large, self._all = work, work + WORK_A_BYTE * size
        self._kept = self._all_kept = kept

    def new_picture(self) -> None:
        """Begin another picture: its windows count anew, the work goes on."""
        self._kept = self._all_kept

    def draw(self, work: float) -> None:
        """Charge work that is about to be done.

        Raises:
            ValueError: it is more than is left.
        """
        self._all -= math.ceil(work)
        self._large -= max(0, math.ceil(work) - FREE)
        if self._all < 0 or self._large < 0:
            raise ValueError("with it the file's shapes are too large, or too costly to draw; bring several files")

    def keep(self, pixels: int) -> None:
        """Charge the pixels of windows that are kept.

        Raises:
            ValueError: it is more than is left.
        """
        self.room(pixels)
        self._kept -= pixels

    def room(self, pixels: int) -> None:
        """Refuse a window before it is made, if it could not be kept.

        Raises:
            ValueError: it has more pixels than are left.
        """
        if pixels > self._kept:
            raise ValueError("the boxes of the picture's shapes hold too many pixels altogether")
