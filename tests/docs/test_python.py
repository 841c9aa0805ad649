"""The guide *Courses in Python* and the notebook run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient


@pytest.mark.slow
def test_the_script_of_the_guide_trains(root: Path, tmp_path: Path) -> None:
    page = (root / "docs/guides/python.md").read_text(encoding="utf-8")
    ((name, text),) = re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, name], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "'accuracy'" in done.stdout
    assert "object:models.torch#" in (tmp_path / "runs/script/course.yaml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_notebook_runs(root: Path) -> None:
    notebook = nbformat.read(root / "examples/notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "proven equal" in said
