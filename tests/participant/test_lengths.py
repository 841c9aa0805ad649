"""Where a length is declared free, a participant's model must follow the reference at other lengths too, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import xbackend_fl
from tests.participant import models
from xbackend_fl import load_course
from xbackend_fl.errors import RefusedInput
from xbackend_fl.participant import Worker

ROOM = Path(__file__).parent
EXAMPLE = (np.random.default_rng(0).standard_normal((1, 6, 8)).astype(np.float32),)


def worker(folder: Path, name: str, axes: str) -> Worker:
    path = folder / "course.yaml"
    path.write_text(f"""
name: small
rounds: 1
models: {{torch: "{ROOM}/models.py:{name}"}}
input: ["1,6,8"]
sequence_axes: {axes}
data: {{source: "{ROOM}/models.py:series"}}
participants: {{torch: 3}}
training: {{batch_size: 16}}
""")
    return Worker(load_course(path), "torch", 1)


def test_a_model_that_knows_the_length_is_noticed_where_the_length_is_free(tmp_path: Path) -> None:
    reference = models.mean_of_steps()
    schema, evidence = xbackend_fl.describe_reference(reference, EXAMPLE)
    for axes in ("[]", "['0.1']"):
        assert worker(tmp_path, "mean_of_steps", axes).bind(schema, evidence)[1].proven
    assert worker(tmp_path, "mean_of_six_steps", "[]").bind(schema, evidence)[1].proven
    with pytest.raises(
        RefusedInput, match=r"torch model follows the graph at the example's length .* only.*7×8"
    ):
        worker(tmp_path, "mean_of_six_steps", "['0.1']").bind(schema, evidence)
