"""The tutorial, as a reader follows it: its files, its commands, its outputs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
_CURE = re.compile(r"<!-- cure: (\S+) -->\n```diff\n-(.*?\n)\+(.*?\n)```", re.DOTALL)
_RUN = re.compile(r"<!-- run: \S+ -->\n```sh\n(.*?)```\n\n```\n(.*?)```", re.DOTALL)
_STEP = re.compile(f"{_CURE.pattern}|{_RUN.pattern}", re.DOTALL)


def _lines(output: str) -> Iterator[str]:
    """Lines without what differs from machine to machine: numbers, versions, spaces and the lines of tables."""
    for line in output.splitlines():
        yield re.sub(r"\d[\d.,e+-]*(cpu)?|[─━┏┓┡┩└┘┬┴┳┻┼╇╈│┃\s]+", " ", line).strip()


@pytest.mark.slow
def test_a_newcomer_sees_what_the_page_shows(root: Path, tmp_path: Path) -> None:
    page = (root / "docs/tutorial.md").read_text(encoding="utf-8")
    for name, text in _FILE.findall(page):
        (tmp_path / name).write_text(text, encoding="utf-8")
    environment = {
        **os.environ,
        "COLUMNS": "110",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    commands = 0
    for cured, wrong, right, command, shown in _STEP.findall(page):
        if cured:
            file = tmp_path / cured
            assert wrong in file.read_text()
            file.write_text(file.read_text().replace(wrong, right))
            continue
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seen = set(_lines((done.stdout + done.stderr).replace(f"{tmp_path}/", "")))
        missing = [line for line in _lines(shown) if line not in seen]
        assert not missing, f"{command}{missing}\n{done.stdout}\n{done.stderr}"
        commands += 1
    assert commands >= 9
