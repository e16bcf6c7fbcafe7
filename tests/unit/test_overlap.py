"""Work ahead and behind: order, errors in their place, bounds, and that it happens at the same time."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdmask import overlap
from crowdmask.overlap import ahead, behind

WAIT = 20.0
"""Seconds after which something that must happen is given up; nothing waits so long when all is well."""


class Stop(Exception):
    pass


def square(x):
    return x * x


@given(st.lists(st.integers(), max_size=12), st.integers(1, 4))
def test_items_come_in_order(items, depth):
    assert list(ahead(iter(items), depth)) == items
    assert list(behind(square, items, depth)) == [square(x) for x in items]
    assert list(behind(square, ahead(items, depth), depth)) == [square(x) for x in items]


def failing(count):
    yield from range(count)
    raise Stop


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_error_of_the_source_comes_in_its_place(count, depth):
    seen = []
    with pytest.raises(Stop):
        for item in ahead(failing(count), depth):
            seen.append(item)
    assert seen == list(range(count))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_error_of_the_work_comes_in_its_place(depth):
    def work(x):
        if x == 4:
            raise Stop
        return x

    seen = []
    with pytest.raises(Stop):
        for item in behind(work, range(9), depth):
            seen.append(item)
    assert seen == [0, 1, 2, 3]


def test_an_error_of_the_items_behind_ends_the_work():
    done = []
    with pytest.raises(Stop):
        list(behind(done.append, failing(3), 2))
    assert done == [0, 1, 2][: len(done)]  # what was begun is finished, the rest is dropped


class AtOnce(ThreadPoolExecutor):
    """A pool that does what it is given at once: what has been begun can be counted."""

    def submit(self, work, *arguments):
        future = Future()
        future.set_result(work(*arguments))
        return future


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_more_is_begun_than_may_be(monkeypatch, depth):
    monkeypatch.setattr(overlap, "ThreadPoolExecutor", AtOnce)
    made, done = [], []
    items = ahead((made.append(k) or k for k in range(9)), depth)
    results = behind(done.append, range(9), depth)
    for k in range(9):
        assert next(items) == k and next(results) is None
        assert len(made) == min(k + 1 + depth, 9)  # this one and those ahead of it
        assert len(done) == min(k + 1 + depth, 9)


def test_ahead_makes_items_while_one_is_used():
    last = threading.Event()

    def source():
        yield 1
        yield 2
        last.set()
        yield 3

    items = ahead(source(), 2)
    assert next(items) == 1
    assert last.wait(WAIT)  # before anybody asked for the second
    assert list(items) == [2, 3]


def test_behind_works_while_items_are_made():
    begun, made = threading.Event(), threading.Event()

    def work(x):
        if x == 1:
            begun.set()
            assert made.wait(WAIT)
        return x

    def items():
        yield 1
        assert begun.wait(WAIT)  # the first is in work while the second is made
        made.set()
        yield 2

    assert list(behind(work, items())) == [1, 2]


def test_threads_are_not_the_callers_and_end_with_it():
    before = set(threading.enumerate())
    seen = []
    items = ahead((threading.current_thread() for _ in range(3)), 2)
    seen += behind(lambda thread: (thread, threading.current_thread()), items)
    assert {thread for pair in seen for thread in pair}.isdisjoint({threading.current_thread()})
    assert len({thread for pair in seen for thread in pair}) == 2
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_caller_that_leaves_early_does_not_hang(taken):
    before = set(threading.enumerate())
    closed = threading.Event()

    def source():
        try:
            k = 0
            while True:
                yield k
                k += 1
        finally:
            closed.set()

    items = ahead(source())
    results = behind(square, items)
    assert [next(results) for _ in range(taken)] == [square(k) for k in range(taken)]
    results.close()
    items.close()
    assert set(threading.enumerate()) == before
    del items, results
    assert taken == 0 or closed.wait(WAIT)


def test_an_error_of_the_caller_ends_the_threads():
    before = set(threading.enumerate())
    with pytest.raises(Stop):
        for item in behind(square, ahead(range(100))):
            if item == 9:
                raise Stop
    assert set(threading.enumerate()) == before


def test_nothing_comes_of_nothing():
    assert list(ahead([])) == [] and list(behind(square, [])) == []


def test_nothing_is_made_before_it_is_asked_for():
    made = []
    items = ahead(made.append(k) for k in range(3))
    assert made == []
    items.close()
    assert made == []
