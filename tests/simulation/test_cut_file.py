"""A mapped file that is cut while it is read ends its worker: whose it was is said, and the run goes on once it is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import xbackend_fl as xb
from tests.participant import loaders
from xbackend_fl.errors import WorkerDied
from xbackend_fl.events import Event, RoundFinished

MODELS = Path(__file__).parents[1] / "participant"
COURSE = f"""
name: cut
rounds: 2
models: {{torch: "{MODELS}/models.py:build"}}
input: ["1,8"]
data: {{source: "{MODELS}/loaders.py:good"}}
participants: [{{name: osaka, backend: torch, data: mapped.py:load}}, {{name: lyon, backend: torch}}]
federate: {{workers: 1}}
training: {{batch_size: 1024}}
"""
LOADER = """
import numpy as np
from pathlib import Path

def load():
    inputs = np.load(Path(__file__).with_name("x.npy"), mmap_mode="r")
    return inputs, np.arange(len(inputs)) % 3
"""


@pytest.mark.slow
def test_a_file_that_is_cut_is_said_with_who_reads_it(tmp_path: Path) -> None:
    inputs = np.resize(loaders.good()["train"][0], (20_000, 8))
    (tmp_path / "course.yaml").write_text(COURSE)
    (tmp_path / "mapped.py").write_text(LOADER)
    file = tmp_path / "x.npy"
    np.save(file, inputs)
    course = xb.load_course(tmp_path / "course.yaml")
    whole, size = file.read_bytes(), file.stat().st_size

    def cut(event: Event) -> None:
        if isinstance(event, RoundFinished) and event.round == 1:
            with file.open("r+b") as stream:
                stream.truncate(4096)

    message = rf"ended with SIGBUS: {file}, which participant 'osaka' reads, was cut from {size:,} to 4,096 bytes while it was mapped"
    with pytest.raises(WorkerDied, match=message):
        xb.run_course(course, tmp_path / "run", observer=cut)
    file.write_bytes(whole)
    expected = xb.run_course(course, tmp_path / "whole", in_process=True)
    assert xb.resume_run(tmp_path / "run", in_process=True).weights.digest == expected.weights.digest
