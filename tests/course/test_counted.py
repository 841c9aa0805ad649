"""A number of participants per backend stays a number in the course that a run folder keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.course.test_hostile import GOOD, NET
from xbackend_fl import load_course
from xbackend_fl.course import Course, dump


def loaded(folder: Path, participants: Any) -> Course:
    (folder / "net.py").write_text(NET)
    file = folder / "course.yaml"
    file.write_text(
        yaml.safe_dump(
            yaml.safe_load(GOOD) | {"participants": participants, "federate": {"cohort": 1}}, sort_keys=False
        )
    )
    return load_course(file)


def test_more_than_a_file_lists_are_kept_as_a_number_and_read_again(tmp_path: Path) -> None:
    course = loaded(tmp_path, {"torch": 6_000, "tensorflow": 4_001})
    assert [course.participants[i].name for i in (0, -1)] == ["torch-0001", "tensorflow-4001"]
    text = dump(course)
    assert yaml.safe_load(text)["participants"] == {"torch": 6_000, "tensorflow": 4_001}
    (tmp_path / "course.yaml").write_text(text)
    assert load_course(tmp_path / "course.yaml").participants == course.participants


def test_a_shorter_list_stays_a_list_whose_entries_can_be_set(tmp_path: Path) -> None:
    course = loaded(tmp_path, {"torch": 3})
    kept = yaml.safe_load(dump(course))["participants"]
    assert [entry["name"] for entry in kept] == ["torch-1", "torch-2", "torch-3"]


def test_a_long_list_that_says_more_than_numbers_stays_one(tmp_path: Path) -> None:
    course = loaded(tmp_path, {"torch": 10_001})
    named = course.participants[0].model_copy(update={"name": "berlin"})
    other = course.model_copy(update={"participants": [named, *course.participants[1:]]}).with_base(tmp_path)
    assert yaml.safe_load(dump(other))["participants"][0] == {"name": "berlin", "backend": "torch"}


@pytest.mark.slow
def test_a_hundred_thousand_take_part(tmp_path: Path) -> None:
    assert loaded(tmp_path, {"torch": 100_000}).participants[-1].name == "torch-100000"
