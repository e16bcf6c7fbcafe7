"""What a message may hold of a file that anybody may have written."""

import pickle

import pytest

from crowdmask.errors import LONGEST, DataError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ä and 頭", "plain, ä and 頭"),
        ("a\0b\x1b[2J\n", r"a\x00b\x1b[2J\n"),
        ("\udcff", r"\udcff"),
        ("right\u202eleft", r"right\u202eleft"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize("content", ["x" * 10_000, "\0" * 10_000])
def test_messages_end(content):
    error = DataError("a.json", content, "Repair it.", row=3)
    assert len(error.problem) == LONGEST and error.problem.endswith("...")
    assert str(error) == f"a.json, row 3: {error.problem}. Repair it."
    assert DataError("a.json", error.problem, error.fix).problem == error.problem


def test_the_path_stays_as_it_is_for_programs():
    error = DataError("a\nb", "wrong", "Repair it.")
    assert error.path == "a\nb" and str(error) == r"a\nb: wrong. Repair it."


def test_errors_of_other_processes_arrive_as_they_are():
    error = DataError("a\nb.json", "x\0" * 300, "Repair it.", row=3)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is DataError and str(again) == str(error)
    assert (again.path, again.problem, again.fix, again.row) == (error.path, error.problem, error.fix, 3)
