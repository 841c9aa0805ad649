"""What a file of one machine says wrongly is told where it belongs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.algorithms.smooth import course_of
from xbackend_fl.course import Course, complete, site_settings
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


def test_code_of_a_site_is_that_of_its_own_participant_alone(tmp_path: Path) -> None:
    """Paths start from the folder of the site file, and the course that is written down has absolute ones."""
    site = tmp_path / "site"
    site.mkdir()
    for name in ("loop.py", "judge.py"):
        (site / name).write_text("def own(task): ...")
    (site / "site.yaml").write_text("name: ben\ntrain: loop.py:own\nevaluate: judge.py:own\n")
    reported = "evaluation.reported={recall: max}"
    course = course_of(tmp_path, ["torch"], reported, *site_settings(site / "site.yaml"))
    found = course.at_site("ben")
    own = {p.name: (found.training_of(p), found.evaluation_of(p)) for p in found.participants}
    assert own.pop("ben") == (f"{site}/loop.py:own", f"{site}/judge.py:own")
    assert {*own.values()} == {(None, None)}
    written = complete(found)["participants"][1]
    assert (written["train"], written["evaluate"]) == (f"{site}/loop.py:own", f"{site}/judge.py:own")
