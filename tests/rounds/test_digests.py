"""A digest of 26 MB takes as long as a round's steps on a GPU: each is computed once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from xbackend_fl import load_course, load_weights, run_course
from xbackend_fl.events import Event, RoundStarted
from xbackend_fl.rounds.checkpoint import load_state
from xbackend_fl.weights import container, files


def test_a_round_computes_two_digests(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its weights, for all files that hold them and for what is said of the best; and of its checkpoint, which holds more."""
    made: list[str] = []
    rounds: list[int] = []
    plain = container.digest

    def counted(arrays: Any) -> str:
        made.append(plain(arrays))
        return made[-1]

    def observe(event: Event) -> None:
        if isinstance(event, RoundStarted):
            rounds.append(len(made))

    monkeypatch.setattr(container, "digest", counted)
    monkeypatch.setattr(files, "digest", counted)
    settings = [
        "rounds=4",
        "training.steps=2",
        *(f"participants.{index}.backend=torch" for index in range(6)),
    ]
    course = load_course(digits / "course.yaml", [*settings, "models={torch: torch_model.py:build}"])
    done = run_course(course, tmp_path / "run", observer=observe, in_process=True)
    assert [entry.best for entry in done.history][:2] == [True, True], "or the best weights were not written"
    assert [after - before for before, after in itertools.pairwise(rounds)] == [2, 2, 2]
    monkeypatch.undo()
    assert load_weights(tmp_path / "run" / "last.safetensors").digest == done.weights.digest
    state = load_state(tmp_path / "run" / "checkpoints" / "round-00004.safetensors")
    assert load_weights(tmp_path / "run" / "best.safetensors").digest == state.best_digest
