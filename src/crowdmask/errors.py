"""Errors that people see: each names the file, the row where there is one, and the way out."""

from __future__ import annotations


class CrowdmaskError(Exception):
    """Base of every error that the command line prints without a traceback."""


class SettingsError(CrowdmaskError):
    """A setting is unknown, of the wrong type or out of range."""


LONGEST = 500
"""Most characters of a file's content, or of what a library says of it, in a message."""


def printable(text: str, longest: int | None = None) -> str:
    """Text with control characters and undecodable bytes escaped, which a file may hold and a terminal would obey.

    Args:
        text: Any text.
        longest: Cut to so many characters, which end in dots; None = whole.
    """
    shown = text if longest is None or len(text) <= longest else f"{text[: longest - 3]}..."
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)
    return shown if longest is None or len(shown) <= longest else f"{shown[: longest - 3]}..."


class DataError(CrowdmaskError):
    """An input file cannot be used.

    What the message takes from the file may be anything: it is made printable here, and cut.

    Args:
        path: The file at fault.
        problem: What is wrong with it.
        fix: What the user can do about it.
        row: 0-based row (point, edit) inside the file, where the fault lies in one.
    """

    def __init__(self, path: object, problem: str, fix: str, row: int | None = None) -> None:
        shown = printable(f"{path}")
        where = shown if row is None else f"{shown}, row {row}"
        problem, fix = printable(problem, LONGEST), printable(fix, 2 * LONGEST)
        super().__init__(f"{where}: {problem}. {fix}")
        self.path = str(path)
        self.problem = problem
        self.fix = fix
        self.row = row

    def __reduce__(self) -> tuple:
        """So that the error of another process arrives as what it is."""
        return DataError, (self.path, self.problem, self.fix, self.row)
