"""Every key of a course with values of every wrong kind, from a file and from Python: refused in plain words, at its key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel

import xbackend_fl as xb
from xbackend_fl.adapter import OPTIMIZERS
from xbackend_fl.aggregation import AGGREGATORS
from xbackend_fl.algorithms import ALGORITHMS, SERVERS
from xbackend_fl.course.model import Course
from xbackend_fl.course.section import Section
from xbackend_fl.data import PARTITIONS
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import LOSSES
from xbackend_fl.metrics import METRICS
from xbackend_fl.schedules import SCHEDULES

pytestmark = pytest.mark.quick

Key = tuple[str | int, ...]

GOOD: dict[str, Any] = {
    "name": "good",
    "rounds": 2,
    "models": {"torch": "net.py:build"},
    "input": ["1,2"],
    "data": {"source": "net.py:load"},
    "participants": [{"name": "osaka", "backend": "torch"}],
}
REGISTRIES: dict[Key, tuple[str, Any]] = {
    ("training", "optimizer"): ("name", OPTIMIZERS),
    ("participants", 0, "training", "optimizer"): ("name", OPTIMIZERS),
    ("training", "loss"): ("name", LOSSES),
    ("training", "schedule"): ("name", SCHEDULES),
    ("federate", "algorithm"): ("name", ALGORITHMS),
    ("federate", "aggregator"): ("name", AGGREGATORS),
    ("federate", "server"): ("name", SERVERS),
    ("data", "partition"): ("kind", PARTITIONS),
}
FREE = {"settings"}
"""Keys whose values are the user's own."""


def keys_of(section: type[BaseModel], at: Key = ()) -> Iterator[Key]:
    """Every key of a section, of those in it, and of one entry of each list and mapping."""
    for name, field in section.model_fields.items():
        path = (*at, name)
        yield path
        for kind in kinds_of(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                inner = (
                    (*path, "torch") if name == "models" else (*path, 0) if name == "participants" else path
                )
                yield from keys_of(kind, inner)
            elif get_origin(kind) in {list, tuple} and name != "participants":
                yield (*path, 0)
    if at == ():
        yield ("participants", 0)
        yield ("models", "torch")


def kinds_of(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from kinds_of(inner)


def settings_of() -> Iterator[tuple[Key, dict[str, Any]]]:
    """Every setting of everything that is named, with what else must be said."""
    for place, (named, registry) in REGISTRIES.items():
        for name, kind in registry.items():
            assert is_dataclass(kind)
            for field in fields(kind):
                if field.name != named:
                    yield (*place, field.name), {named: name}
    for name, kind in METRICS.items():
        for field in fields(kind):
            if field.name != "name":
                yield ("evaluation", "metrics", 0, field.name), {"name": name}


KEYS = sorted({*keys_of(Course)}, key=str)
CASES = [(key, {}) for key in KEYS if key[-1] not in FREE] + [*settings_of()]

FROM_A_FILE: dict[str, Any] = {
    "number": 3.25,
    "negative": -7,
    "nan": float("nan"),
    "text": "§",
    "nothing": None,
    "list": [[1]],
    "mapping": {"§": 1},
    "switch": True,
}
FROM_PYTHON: dict[str, Any] = {
    **FROM_A_FILE,
    "array": np.zeros(3),
    "function": lambda: 1,
    "object": object(),
    "set": {1},
    "keys": {1: 2},
    "bytes": b"x",
}
PYDANTIC = re.compile(
    r"valid dictionary|instance of|discriminator|match pattern|after validation|\[key\]|extract fields|pydantic|valid (list|string|tuple|integer|number|boolean)"
    r"|unable to|_kind|validate|\bNone\b|input_type|errors\.|"
    + "|".join(rf"\b{one.__name__}\b" for one in Section.__subclasses__() if one.__name__ != "Participant")
)


def changed(key: Key, value: Any, beside: dict[str, Any]) -> dict[str, Any]:
    """The good course with a value at a key."""
    made = json.loads(json.dumps(GOOD))
    node: Any = made
    for step, following in pairwise(key):
        if isinstance(node, list):
            node += [{}] * (step + 1 - len(node))
            node = node[step]
            continue
        if not isinstance(node.get(step), dict | list):
            text = {"data": "source", "torch": "build"}.get(step)
            node[step] = (
                [] if isinstance(following, int) else {text: node[step]} if step in node and text else {}
            )
        node = node[step]
    if beside:
        node |= beside
    if isinstance(node, list):
        node[int(key[-1]) :] = [value]
    else:
        node[key[-1]] = value
    return made


def dotted(key: Key) -> str:
    return ".".join(map(str, key))


def wrong(said: str, key: Key) -> str:
    """What is wrong with a refusal."""
    if found := PYDANTIC.search(said):
        return f"pydantic's words {found[0]!r}"
    first = said.partition("\n")[0]
    names = [dotted(key[:end]) for end in range(1, len(key) + 1)]
    if not any(name in first for name in names) and str(key[-1]) not in first:
        return "no key"
    if key[0] == "participants" and len(key) > 2 and "osaka" not in said and key[-1] != "name":
        return "no participant"
    return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("courses")
    (found / "net.py").write_text("def build(): ...\ndef load(): ...\n")
    return found


@pytest.mark.parametrize("kind", FROM_A_FILE)
def test_a_file(folder: Path, kind: str) -> None:
    bad = []
    for key, beside in CASES:
        course = folder / "course.yaml"
        course.write_text(json.dumps(changed(key, FROM_A_FILE[kind], beside)).replace("NaN", ".nan"))
        try:
            xb.load_course(course)
        except ConfigError as error:
            if why := wrong(str(error), key):
                bad.append((dotted(key), why, str(error)))
    assert not bad, "\n".join(map(str, bad))


@pytest.mark.parametrize("kind", FROM_PYTHON)
def test_python(kind: str) -> None:
    bad = []
    for key, beside in CASES:
        try:
            xb.Course(**changed(key, FROM_PYTHON[kind], beside))
        except ConfigError as error:
            if why := wrong(str(error), key):
                bad.append((dotted(key), why, str(error)))
    assert not bad, "\n".join(map(str, bad))


SAID = {
    "metrics": (lambda: xb.Course(**GOOD | {"evaluation": {"metrics": [3]}}), "`evaluation.metrics.0`: input should be a name, or a mapping with name, got 3"),
    "a metric by a wrong name": (lambda: xb.Course(**GOOD | {"evaluation": {"metrics": ["accuracy", "aucc"]}}), "`evaluation.metrics.1` is 'aucc'; there are accuracy"),
    "early stopping": (lambda: xb.Course(**GOOD | {"early_stopping": 3}), "`early_stopping`: input should be a mapping of keys, got 3"),
    "a participant": (lambda: xb.Course(**GOOD | {"participants": ["a"]}), "`participants.0`: input should be a mapping of keys, got 'a'"),
    "no model": (lambda: xb.Course(**GOOD | {"models": {}}), "`models` has 0 entries, and needs 1 at least"),
    "a name": (lambda: xb.Course(**GOOD | {"name": "a b"}), "`name`: input should be a name of letters, digits, '.', '_' and '-' that begins with a letter or a digit, got 'a b'"),
    "a key": (lambda: xb.Course(**GOOD | {"training": {"settings": {1: 2}}}), "`training.settings`: keys are texts, got 1"),
    "an array for a model": (lambda: xb.Course(**GOOD | {"models": {"torch": np.zeros(3)}}), "`models.torch`: input should be FILE_OR_MODULE:CALLABLE, or a mapping with build (in Python a function or a model, too), got an array"),
    "a function for a number": (lambda: xb.Course(**GOOD | {"rounds": print}), "`rounds`: input should be a whole number, got a function"),
    "a participant's data": (lambda: xb.Participant("osaka", "torch", data=5), "participant 'osaka': `data`: input should be FILE_OR_MODULE:CALLABLE (in Python examples or a function, too), got 5"),
    "a participant's loop": (lambda: xb.Participant("osaka", "torch", train=object()), "participant 'osaka': `train`: input should be FILE_OR_MODULE:CALLABLE (in Python a function, too), got an object of the class object"),
    "a participant's name": (lambda: xb.Participant(3, "torch"), "participant: `name`: input should be a text, got 3"),
    "two parts of three": (lambda: xb.Course(**GOOD | {"data": {"train": 1, "test": 2}}), "`data`: examples are a mapping with train, validation and test, and this one has no validation"),
    "a part by a wrong name": (lambda: xb.Course(**GOOD | {"data": {"trian": 1, "validation": 2, "test": 2}}), "has no train and unknown 'trian'"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_in_words(case: str) -> None:
    make, words = SAID[case]
    with pytest.raises(ConfigError) as caught:
        make()
    assert words in str(caught.value)
