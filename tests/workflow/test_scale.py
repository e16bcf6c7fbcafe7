"""A data set of thousands of images is planned in seconds."""

import re
import resource

from flow import Flow


def used() -> float:
    """Processor time of finished child processes, seconds."""
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    return times.ru_utime + times.ru_stime


def test_dry_run_of_5000_images(tmp_path, record_property):
    flow = Flow(tmp_path / "big", {"datasets": {"big": {"format": "ucf", "root": "in"}}})
    for split, number in (("Train", 4000), ("Test", 1000)):
        (flow.folder / "in" / split).mkdir(parents=True)
        for k in range(1, number + 1):
            for name in (f"img_{k:04d}.jpg", f"img_{k:04d}_ann.mat"):
                (flow.folder / "in" / split / name).touch()
    start = used()
    done = flow.run("--dry-run", "results/big/masks.json", "results/big/overlays/index.html")
    seconds = used() - start
    record_property("seconds", round(seconds, 2))
    assert done.code == 0, done.text
    assert seconds < 60  # 2 on an idle machine; of the processor, so that a busy one does not fail
    table = done.text[done.text.index("Job stats:") :]
    found = {rule: int(number) for rule, number in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    each = dict.fromkeys(("datasets", "superpixels", "segment", "exclude", "merge"), 128)  # 64 batches a split
    assert found == {**each, "export": 1, "overlay": 4, "overlays": 1, "total": 646}
