"""Errors that people see: each names the file, the row where there is one, and the way out."""

from __future__ import annotations


class CrowdmaskError(Exception):
    """Base of every error that the command line prints without a traceback."""


class SettingsError(CrowdmaskError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(CrowdmaskError):
    """An input file cannot be used.

    Args:
        path: The file at fault.
        problem: What is wrong with it.
        fix: What the user can do about it.
        row: 0-based row (point, edit) inside the file, where the fault lies in one.
    """

    def __init__(self, path: object, problem: str, fix: str, row: int | None = None) -> None:
        where = f"{path}" if row is None else f"{path}, row {row}"
        super().__init__(f"{where}: {problem}. {fix}")
        self.path = str(path)
        self.problem = problem
        self.fix = fix
        self.row = row
