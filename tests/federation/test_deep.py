"""A real net of thirty layers: weights of moderate size leave nothing of it, and the next round says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.federation.deep import deep_course, open_silos
from tests.federation.links import Altered, deployed
from xbackend_fl.canonical import Schema
from xbackend_fl.events import Noted
from xbackend_fl.federation import Message, Silo
from xbackend_fl.federation.silo.silo import evidence_alone, initial_weights
from xbackend_fl.weights import load_weights

SERVERS = ["name: fedavg", "name: fedavgm", "name: fedadam, lr: 0.01"]


@pytest.fixture(scope="module")
def silos(tmp_path_factory: pytest.TempPathFactory) -> list[Silo]:
    folder = tmp_path_factory.mktemp("deep")
    return open_silos(deep_course(folder / "course"), folder)


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("bad", [[1], [2], [3], [1, 2, 3]])
def test_a_deep_net_survives_one_silo(server: str, bad: list[int], silos: list[Silo], tmp_path: Path) -> None:
    """The trained model is the others'; with a server optimizer that does not mind the length of a change, it may be that of all."""
    course = deep_course(tmp_path / "course", server=server)
    name = course.participants[1].name
    draw = np.random.default_rng(1)

    def spoilt(answer: Message) -> Message:
        if answer.fields["round"] not in bad:
            return answer
        arrays = {n: draw.uniform(0.5, 9, a.shape).astype(a.dtype) for n, a in answer.arrays.items()}
        return replace(answer, arrays=arrays)

    run, events = deployed(course, Altered(silos, name, spoilt), tmp_path / "run")
    notes = [event.note for event in events if isinstance(event, Noted)]
    assert any(f"{name} stands out" in note for note in notes)
    again = [note for note in notes if "is merged again without" in note]
    if "fedadam" in server:
        assert len(again) <= 1
    else:
        assert [note.split(":")[0] for note in again] == [
            f"round {bad[0]} is merged again without the update of {name}"
        ]
    assert [entry.round for entry in run.history] == [1, 2, 3]
    assert all(entry.loss < 5 for entry in run.history), [entry.loss for entry in run.history]
    assert run.result is not None
    assert run.result.test_loss < 5
    assert load_weights(tmp_path / "run" / "last.safetensors").digest == run.weights.digest


@pytest.mark.slow
def test_a_silo_that_found_nan_can_be_proven_again(silos: list[Silo]) -> None:
    """A server that starts again binds every model anew: NaN from the training before was in it, and it was refused."""
    evidence = Message.from_bytes(silos[0].reply(Message("evidence").to_bytes()), "")
    binding = evidence_alone(evidence)
    assert silos[2].answer(binding).kind == "bound"
    base = initial_weights(Schema.from_json(evidence.fields["schema"]), evidence)
    draw = np.random.default_rng(1)
    far = base.like({n: draw.uniform(0.5, 3, a.shape).astype(a.dtype) for n, a in base.items()})
    asked = {
        "run": "r",
        "round": 1,
        "base": far.digest,
        "fingerprint": far.fingerprint,
        "receipts": {},
        "payload": {"kind": "float32", "share": 1.0},
        "evaluate": None,
    }
    answer = silos[2].answer(Message.from_bytes(Message("train", asked, far).to_bytes(), ""))
    assert answer.diverged, answer.reason
    assert silos[2].answer(binding).kind == "bound"
