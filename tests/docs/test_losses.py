"""The guide *Losses* runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xbackend_fl import load_course, run_course
from xbackend_fl.report import describe

_FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
_NUMBER = re.compile(r"-?\d+\.\d+")


def test_the_course_of_several_outputs_trains(root: Path, tmp_path: Path) -> None:
    page = (root / "docs/guides/losses.md").read_text(encoding="utf-8")
    files = _FILE.findall(page)
    assert sum(len(text.splitlines()) for _, text in files) < 60
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
    run = run_course(load_course(tmp_path / "course.yaml"), tmp_path / "run", in_process=True)
    shown = next(line for line in page.splitlines() if line.startswith("round 4: "))
    found = describe(run.history[-1])
    numbers, expected = (
        [float(n) for n in _NUMBER.findall(text.rpartition(", ")[0])] for text in (found, shown)
    )
    assert _NUMBER.sub("", found) == _NUMBER.sub("", shown)
    assert numbers == pytest.approx(expected, rel=0.03)
    assert run.result is not None
    assert run.result.metric == "organ/accuracy"
