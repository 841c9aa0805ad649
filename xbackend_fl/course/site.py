"""The file of one machine: what a silo or the server adds to a course that all have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from xbackend_fl.course import compose, diagnostics, reading
from xbackend_fl.course.deployment import DeploymentSection
from xbackend_fl.course.model import Course
from xbackend_fl.course.model_section import CODE
from xbackend_fl.course.training import OwnTraining, Training
from xbackend_fl.data import absolute
from xbackend_fl.errors import ConfigError
from xbackend_fl.locate import resolve

_AGREED = "what one silo does otherwise is something that all agree on: the course file, at the server and at every silo"


def site_settings(path: Path) -> list[str]:
    """What one machine adds to a shared course, as overrides.

    Args:
        path: A YAML file with fields of ``deployment``: ``name``, ``data_path``, ``train``, ``evaluate``, ``address``, ``keys``, ``serve``; paths are
            relative to its own folder.

    Raises:
        ConfigError: It is missing, or says something else; with line and column, and where a key of a course belongs.
    """
    document = reading.read_file(path, "site")
    assert document.root is not None
    plain = compose.plain(document.root)
    try:
        DeploymentSection.model_validate(plain)
    except ValidationError as error:
        found, count = diagnostics.explain(error, DeploymentSection)
        raise ConfigError(diagnostics.render([*map(_elsewhere, found)], document, count=count)) from error
    home = path.resolve().parent
    if plain.get("data_path") is not None:
        plain["data_path"] = absolute(plain["data_path"], home)
    if plain.get("keys") is not None:
        plain["keys"] = str(home / plain["keys"])
    for name in CODE:
        if plain.get(name) is not None:
            plain[name] = resolve(plain[name], home)
    if plain.get("serve") is not None:
        plain["serve"] = {"engine": str((home / plain["serve"]["engine"]).resolve())}
    return [f"deployment.{name}={json.dumps(value)}" for name, value in plain.items()]


def _elsewhere(found: diagnostics.Mistake) -> diagnostics.Mistake:
    """A key that a course has and a file of one machine has not, with the place where it belongs."""
    key = str(found.path[0]) if len(found.path) == 1 else ""
    if key in DeploymentSection.model_fields:
        return found
    if key in OwnTraining.model_fields or key == "training":
        said = "batch_size: 8" if key == "training" else f"{key}: …"
        hint = f"{_AGREED}, has participants: [{{name: …, training: {{{said}}}}}]"
    elif key in Training.model_fields:
        hint = f"it is the same for everybody; the course file has training.{key}"
    elif key == "data":
        hint = "data_path names this silo's own data, as `data.source` does"
    elif key in Course.model_fields:
        hint = f"the course file has `{key}`, at the server and at every silo"
    else:
        return found
    here = ", ".join(("name", "data_path", *CODE, "address", "keys", "serve"))
    return replace(
        found, message=f"`{key}` does not stand in a file of one machine, which has {here}", hint=hint
    )
