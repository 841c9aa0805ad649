"""What a file of one machine says wrongly is told where it belongs."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbackend_fl.course import Course, site_settings
from xbackend_fl.course.deployment import DeploymentSection
from xbackend_fl.course.training import Training
from xbackend_fl.errors import ConfigError

pytestmark = pytest.mark.quick


def refused(tmp_path: Path, text: str) -> str:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        site_settings(tmp_path / "site.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("training: {batch_size: 8}", "participants: [{name: …, training: {batch_size: 8}}]"),
        ("batch_size: 8", "participants: [{name: …, training: {batch_size: …}}]"),
        ("optimizer: {lr: 0.1}", "participants: [{name: …, training: {optimizer: …}}]"),
        ("loss: huber", "it is the same for everybody; the course file has training.loss"),
        ("data: {source: a.npz}", "data_path names this silo's own data"),
        ("rounds: 3", "the course file has `rounds`, at the server and at every silo"),
        ("data_pth: a.npz", "did you mean `data_path`?"),
    ],
)
def test_a_key_of_the_course_is_sent_there(tmp_path: Path, text: str, cure: str) -> None:
    found = refused(tmp_path, f"name: lyon\n{text}\n")
    assert cure in found
    assert "site.yaml:2:1" in found
    assert "did you mean `train`?" not in found


def test_every_key_of_a_course_has_a_place(tmp_path: Path) -> None:
    for key in {*Course.model_fields, *Training.model_fields} - DeploymentSection.model_fields.keys():
        assert "does not stand in a file of one machine" in refused(tmp_path, f"{key}: 1"), key
