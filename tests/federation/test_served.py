"""A silo's engine has the weights of every round, and never ends a course that trains."""

from __future__ import annotations

from pathlib import Path

import pytest

import xbackend_fl.tensorrt
from tests.federation.campaign import write_course
from tests.federation.light import Linear, schema_of
from tests.federation.links import deployed
from tests.federation.local import LocalLink
from xbackend_fl import Course
from xbackend_fl.course import complete, load_course, site_settings
from xbackend_fl.errors import FileError, MismatchError
from xbackend_fl.federation import Silo
from xbackend_fl.weights import Weights

pytestmark = pytest.mark.quick


def silos(course: Course, folder: Path, engine: Path) -> list[Silo]:
    """The first silo serves an engine."""
    serving = load_course(course.base / "course.yaml", [f"deployment.serve.engine={engine}"])
    first, *others = (participant.name for participant in course.participants)
    chosen = {first: serving, **dict.fromkeys(others, course)}
    return [Silo(own, name, Linear(name, own), out=folder / name) for name, own in chosen.items()]


class Ready:
    """An engine of the course's schema."""

    def require(self, fingerprint: str) -> None:
        assert fingerprint == schema_of(40, 30).fingerprint

    def require_whole(self) -> None:
        """It is what was written."""


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return write_course(tmp_path / "course", rounds=4, silos=2)


def test_after_each_round_the_engine_has_its_weights(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def refit(path: Path, fingerprint: str, weights: Weights) -> None:
        assert (path, fingerprint) == (tmp_path / "net.engine", weights.fingerprint)
        written.append(weights.digest)

    monkeypatch.setattr(xbackend_fl.tensorrt.Engine, "load", lambda _: Ready())
    monkeypatch.setattr(xbackend_fl.tensorrt, "refit_engine", refit)
    run, _ = deployed(course, LocalLink(silos(course, tmp_path, tmp_path / "net.engine")), tmp_path / "run")
    assert len(written) == len(set(written)) == course.rounds
    assert written[-1] == run.weights.digest


def test_what_goes_wrong_with_an_engine_ends_no_course(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refit(*_: object) -> None:
        raise FileError("no space")

    monkeypatch.setattr(xbackend_fl.tensorrt.Engine, "load", lambda _: Ready())
    monkeypatch.setattr(xbackend_fl.tensorrt, "refit_engine", refit)
    run, _ = deployed(course, LocalLink(silos(course, tmp_path, tmp_path / "net.engine")), tmp_path / "run")
    assert run.result.rounds == course.rounds
    assert "net.engine keeps the weights of an earlier round: no space" in caplog.text


def test_an_engine_that_cannot_follow_is_refused_before_anything_is_trained(
    course: Course, tmp_path: Path
) -> None:
    with pytest.raises(MismatchError, match=r"no such file: .*net\.engine"):
        deployed(course, LocalLink(silos(course, tmp_path, tmp_path / "net.engine")), tmp_path / "run")


def test_the_file_of_a_site_names_it_from_its_own_folder(course: Course, tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("serve: {engine: net.engine}", encoding="utf-8")
    (setting,) = site_settings(tmp_path / "site.yaml")
    found = load_course(course.base / "course.yaml", [setting])
    assert complete(found)["deployment"]["serve"] == {"engine": str(tmp_path / "net.engine")}
    own = complete(load_course(course.base / "course.yaml", ["deployment.serve.engine=a.engine"]))
    assert own["deployment"]["serve"]["engine"] == str(course.base.resolve() / "a.engine")
