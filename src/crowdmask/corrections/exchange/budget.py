"""What the shapes of foreign files may cost: charged before anything is drawn or allocated."""

from __future__ import annotations

import math

MAX_KEPT = 1 << 28
"""Most pixels of all windows of a picture together, all readings (bytes)."""
MAX_WORK = 1 << 30
"""Most drawing that a budget begins with unless told otherwise; the unit is a pixel of a filled box."""


class Budget:
    """What may still be drawn and kept for one picture, or for the pictures of a file one after the other.

    Args:
        work: What may be drawn, for all pictures together.
        kept: Pixels of windows that may be kept, for each picture.
    """

    def __init__(self, work: int = MAX_WORK, kept: int = MAX_KEPT) -> None:
        self._work = work
        self._kept = self._all_kept = kept

    def new_picture(self) -> None:
        """Begin another picture: its windows count anew, the work goes on."""
        self._kept = self._all_kept

    def draw(self, work: float) -> None:
        """Charge work that is about to be done.

        Raises:
            ValueError: it is more than is left.
        """
        self._work -= math.ceil(work)
        if self._work < 0:
            raise ValueError("too costly to draw, with what came before; bring masks as run lengths, or several files")

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
