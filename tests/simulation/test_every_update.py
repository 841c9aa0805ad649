"""A rule that looks at every update: what is said of keys that play no part, and what is left on disk."""

from __future__ import annotations

from pathlib import Path

import xbackend_fl as xb
from xbackend_fl.events import Event, Noted

MODELS = Path(__file__).parents[1] / "participant"
COURSE = f"""
name: middle
rounds: 1
models: {{torch: "{MODELS}/models.py:build"}}
input: ["1,8"]
data: {{source: "{MODELS}/loaders.py:good"}}
participants: {{torch: 3}}
federate: {{aggregator: median, precision: exact}}
"""


def test_a_median_says_that_precision_plays_no_part_and_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "course.yaml").write_text(COURSE)
    said: list[Event] = []
    place = tmp_path / "run"
    xb.run_course(xb.load_course(tmp_path / "course.yaml"), place, observer=said.append, in_process=True)
    notes = [event.note for event in said if isinstance(event, Noted)]
    words = "federate.precision exact, plays no part: federate.aggregator median looks at every update"
    assert any(words in note for note in notes)
    assert words in (place / "summary.md").read_text()
    assert not (place / "updates").exists()
