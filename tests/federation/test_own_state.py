"""A training loop that keeps state goes on with it whoever is killed, and whenever: the run ends with the bits of one in which nobody was."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest

from tests.federation.campaign import Processes
from xbackend_fl import load_course
from xbackend_fl.simulation import run_course
from xbackend_fl.weights import load_weights

ROUNDS, PATIENCE_S = 7, 60.0
FILES = {
    "own.py": """
        import os
        import time
        from pathlib import Path

        import numpy as np
        import torch
        from torch.nn import functional

        def build():
            torch.manual_seed(1)
            return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))

        def load():
            x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
            return {split: (x, np.sin(x[:, :1])) for split in ("train", "validation", "test")}

        def train(task):
            optimizer = torch.optim.Adam(task.model.parameters(), lr=task.lr)
            if "adam" in task.state:
                optimizer.load_state_dict(task.state["adam"])
            # Before anything is trained: what a killed round put here must be gone.
            task.state["rounds"] = task.state.get("rounds", 0) + 1
            for step, (inputs, targets) in enumerate(task.batches()):
                optimizer.zero_grad()
                functional.mse_loss(task.model(inputs), targets).backward()
                optimizer.step()
                if step == 1 and (slow := os.environ.get("SLOW")):
                    (Path(slow) / f"{task.participant}-{task.round}").touch()
                    time.sleep(0.8 if task.participant == "osaka" else 0.3)
            task.state["adam"] = optimizer.state_dict()
            return {"num_examples": len(task.data[1]), "rounds": task.state["rounds"]}
        """,
    "course.yaml": f"""
        name: kept
        seed: 3
        rounds: {ROUNDS}
        models: {{torch: {{build: own.py:build, train: own.py:train}}}}
        input: ["1,4"]
        data: {{source: own.py:load}}
        participants: [{{name: osaka, backend: torch}}, {{name: lyon, backend: torch}}]
        training: {{loss: mean_squared_error, batch_size: 8, optimizer: {{name: adam, lr: 0.01}}}}
        federate: {{precision: exact}}
        deployment: {{round_timeout_s: 120}}
        """,
}


def until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def told(folder: Path, event: str, number: int, name: str = "") -> bool:
    """Whether the run has an event of a round, of a participant if one is named."""
    file = folder / "run" / "events.jsonl"
    if not file.is_file():
        return False
    rows = [json.loads(text) for text in file.read_text().splitlines(keepends=True) if text.endswith("\n")]
    return any(
        row["event"] == event and row.get("round") == number and name in row.get("name", "") for row in rows
    )


@pytest.mark.slow
def test_kills_keep_the_state_of_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(dedent(text))
    course = load_course(tmp_path / "course.yaml")
    expected = run_course(course, tmp_path / "undisturbed", in_process=True).weights.digest
    monkeypatch.setenv("SLOW", str(tmp_path))
    light, place = [sys.executable, "-m", "tests.federation.light"], str(tmp_path)
    silos = {name: partial(list, [*light, "real", place, name]) for name in ("osaka", "lyon")}
    processes = Processes(tmp_path, {"server": partial(list, [*light, "server", place]), **silos})
    trains, accepted = (lambda who, n: (tmp_path / f"{who}-{n}").exists()), partial(told, tmp_path)
    kills: list[tuple[str, Callable[[], bool]]] = [
        # In the middle of a round; in one with half of its updates; between two.
        ("osaka", lambda: trains("osaka", 2)),
        ("server", lambda: accepted("participant_trained", 3, "lyon")),
        ("server", lambda: accepted("round_collected", 4)),
        # Its update is sent, and counts.
        ("lyon", lambda: accepted("participant_trained", 5, "lyon")),
        ("both", lambda: trains("osaka", 6)),
        # The last update, before the silo saves its model.
        ("osaka", lambda: accepted("participant_trained", 7, "osaka")),
    ]
    try:
        processes.start()
        for who, when in kills:
            until(when, who)
            for one in ("server", "osaka") if who == "both" else (who,):
                processes.kill(one)
            processes.start()
        while (code := processes.server_ended()) is None:
            processes.start(server=False)
            time.sleep(0.05)
        assert code == 0, (tmp_path / "server.log").read_text()[-3000:]
    finally:
        processes.close()
    assert load_weights(tmp_path / "run" / "last.safetensors").digest == expected
    rows = [json.loads(text) for text in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    found = {
        (row["name"], row["round"]): row["figures"]["rounds"]
        for row in rows
        if row["event"] == "participant_trained"
    }
    assert found == {(name, number): number for name in silos for number in range(1, ROUNDS + 1)}
