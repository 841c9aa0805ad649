"""What a silo says of batch normalisation, dropout and padding: values without a meaning are its own fault, and nobody trains with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.federation.links import Altered, deployed
from xbackend_fl import Course, load_course
from xbackend_fl.canonical import Schema
from xbackend_fl.errors import SchemaError, UpdateRefused
from xbackend_fl.events import ParticipantFailed
from xbackend_fl.federation import Message, Silo
from xbackend_fl.federation.server.reference import reference_of

NETWORK = """
import numpy as np
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 3))

def load():
    draw = np.random.default_rng(0)
    sizes = {"train": 90, "validation": 30, "test": 30}
    return {name: (draw.standard_normal((n, 6), np.float32), draw.integers(0, 3, n)) for name, n in sizes.items()}
"""
COURSE = """
name: strange
rounds: 2
models: {{torch: "net.py:build"}}
input: ["1,6"]
data: {{source: "net.py:load"}}
participants: [{{name: a, backend: torch}}, {{name: b, backend: torch}}, {{name: c, backend: torch}}]
training: {{batch_size: 20}}
federate: {{on_failure: continue}}
deployment: {{quorum: 2, join_timeout_s: 1, round_timeout_s: 60, payload: {payload}}}
"""


def course_in(folder: Path, payload: str = "float32") -> Course:
    (folder / "net.py").write_text(NETWORK, encoding="utf-8")
    (folder / "course.yaml").write_text(COURSE.format(payload=payload), encoding="utf-8")
    return load_course(folder / "course.yaml")


@pytest.mark.parametrize("payload", ["float32", "int8"])
def test_a_negative_variance_is_its_own_silos_fault(payload: str, tmp_path: Path) -> None:
    """The others would compute NaN from the mean, and be blamed for it. Where rounding can make one, it is zero."""
    course = course_in(tmp_path, payload)

    def changed(answer: Message) -> Message:
        arrays = {
            n: np.full_like(a, -120 if a.dtype == np.int8 else -3) if n.endswith("variance") else a
            for n, a in answer.arrays.items()
        }
        scales = {n: np.full_like(a, 1.0) for n, a in arrays.items() if n == "scales/1.variance"}
        return replace(answer, arrays=arrays | scales)

    link = Altered([Silo.from_course(course, name) for name in "abc"], "b", changed)
    run, events = deployed(course, link, tmp_path / "run")
    failed = [(event.name, event.reason) for event in events if isinstance(event, ParticipantFailed)]
    assert [name for name, _ in failed] == ["b", "b"]
    # A zero is no fault of the rounding, but nothing that the others' data explain either.
    said = (
        "holds -3, and no variance is negative"
        if payload == "float32"
        else "has variances of 0 in '1.variance'"
    )
    assert all(said in reason for _, reason in failed)
    assert (run.weights["1.variance"] >= 0).all()
    assert all(np.isfinite(list(entry.metrics.values())).all() for entry in run.history)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Message:
    course = course_in(tmp_path_factory.mktemp("course"))
    return Message.from_bytes(Silo.from_course(course, "a").reply(Message("evidence").to_bytes()), "a silo")


def test_initial_variances_are_not_negative(evidence: Message) -> None:
    reference_of("oslo", evidence)
    arrays = {
        n: np.full_like(a, -1e-9) if n == "weights/1.variance" else a for n, a in evidence.arrays.items()
    }
    changed = Message.from_bytes(replace(evidence, arrays=arrays).to_bytes(), "a silo")
    with pytest.raises(UpdateRefused, match=r"'1\.variance' hold -1e-09, and no variance is negative"):
        reference_of("oslo", changed)


def with_attribute(text: str, operator: str, name: str, value: Any) -> str:
    plain = json.loads(text)
    (node,) = (node for node in plain["nodes"] if node["operator"] == operator)
    node["attributes"][name] = value
    return json.dumps(plain)


RATE, SHARE = "expected a number from 0 to below 1", "expected a number from 0 to 1"


@pytest.mark.parametrize(
    ("operator", "name", "value", "words"),
    [
        *(("Dropout", "ratio", value, RATE) for value in (-1.0, 1.0, 5.0, "x", [1], True, float("nan"), "\x1b[2J" * 99)),
        *(("BatchNormalization", "momentum", value, SHARE) for value in (-5.0, 1.5, 1e30, "x", [0.5], float("nan"))),
        *(("Dropout", "shared_axes", value, "expected numbers of axes") for value in ("x", 1, [-1], [0.5], [10**9])),
    ],
)  # fmt: skip
def test_what_training_alone_reads_has_a_meaning(
    evidence: Message, operator: str, name: str, value: Any, words: str
) -> None:
    text = with_attribute(evidence.fields["schema"], operator, name, value)
    with pytest.raises(SchemaError) as caught:
        Schema.from_json(text)
    said = caught.value.message
    assert said.startswith("node '")
    assert f"{name} of {operator} is " in said
    assert words in said
    assert said.isprintable()
    with pytest.raises(UpdateRefused, match=words):
        reference_of("oslo", replace(evidence, fields={**evidence.fields, "schema": text}))


@pytest.mark.parametrize(
    ("operator", "name", "value"), [("Dropout", "ratio", 0), ("BatchNormalization", "momentum", 1.0)]
)
def test_the_ends_of_a_range_have_a_meaning(
    evidence: Message, operator: str, name: str, value: float
) -> None:
    Schema.from_json(with_attribute(evidence.fields["schema"], operator, name, value))
