"""`snakemake --report`: one HTML file with pages, pictures, captions and settings."""

import re

from flow import targets


def test_report_holds_the_pages_of_a_data_set(changed):
    changed.make(*targets("crowd", "index.html"))
    page = changed.path("crowd", "index.html").read_text(encoding="utf-8")
    for link in re.findall(r'href="([^"]+)"', page):
        assert (changed.path("crowd") / link).is_file(), link
    assert "evaluation.html" in page and "<td>n_segments</td>" in page
    changed.run("--report", "report.html", *targets("crowd", "index.html"))
    report = (changed.folder / "report.html").read_text(encoding="utf-8")
    for text in ("Instance masks from head points", "worst first", "against true masks", "settings, versions", ".png"):
        assert text in report, text
