"""The guide to certificates: its program runs, and says that every line is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_program_of_the_page_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (root / "docs/guides/certificates.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"<!-- certificates\.py -->\n```python\n(.*?)```", page, re.DOTALL)
    exec(compile(program, "certificates.py", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["schema", "bindings", "example", "probes", "onnx", "model"]
    assert not any("False" in line for line in said)
