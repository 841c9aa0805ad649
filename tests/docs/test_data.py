"""The guide *Data* runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from xbackend_fl import load_course, run_course
from xbackend_fl.events import Event, Noted, ParticipantTrained

_FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
NET = "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 2))\n"


def test_the_course_of_the_guide_trains(root: Path, tmp_path: Path) -> None:
    page = (root / "docs/guides/data.md").read_text(encoding="utf-8")
    for name, text in [("net.py", NET), *_FILE.findall(page)]:
        (tmp_path / name).write_text(text, encoding="utf-8")
    rng = np.random.default_rng(0)
    for kind in ("ill", "well"):
        (tmp_path / "scans" / kind).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "scans" / kind / f"{number}.png")
    events: list[Event] = []
    run = run_course(
        load_course(tmp_path / "course.yaml"), tmp_path / "run", in_process=True, observer=events.append
    )
    assert len(run.history) == 2
    trained = {event.name: event.num_examples for event in events if isinstance(event, ParticipantTrained)}
    assert trained == {"osaka": 12, "lyon": 12, "accra": 20}
    notes = [event.note for event in events if isinstance(event, Noted)]
    assert "images:scans: classes 0 ill, 1 well, sorted by name" in notes
    assert any("a Scans, read example by example" in note for note in notes)
