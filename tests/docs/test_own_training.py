"""The guide *Your own training* runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xbackend_fl import load_course, run_course
from xbackend_fl.events import Event, ParticipantTrained

_FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
FILES = {
    "net.py": "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))\n",
    "data.py": (
        "import numpy as np\n\n\ndef load():\n    x = np.random.default_rng(0).standard_normal((48, 4)).astype(np.float32)\n"
        "    return {split: (x, (x[:, 0] > 0).astype(np.int64)) for split in ('train', 'validation', 'test')}\n"
    ),
}


@pytest.fixture
def room(root: Path, tmp_path: Path) -> Path:
    page = (root / "docs/guides/own-training.md").read_text(encoding="utf-8")
    for name, text in [*FILES.items(), *_FILE.findall(page)]:
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("loop", ["loop.py", "keeping.py"])
def test_the_loops_of_the_guide_train(room: Path, loop: str) -> None:
    events: list[Event] = []
    course = load_course(room / "course.yaml", [f"participants.1.train={loop}:train"])
    run_course(course, room / "run", in_process=True, observer=events.append)
    trained = [event for event in events if isinstance(event, ParticipantTrained)]
    assert [(event.round, event.name, event.num_examples) for event in trained] == [
        (number, name, 24) for number in (1, 2) for name in ("lyon", "osaka")
    ]
    assert (room / "run" / "clients" / "lyon").is_dir() == (loop == "keeping.py")
