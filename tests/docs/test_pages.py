"""What pages for contributors say is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.quick


def test_the_tour_names_places_that_are_there(root: Path) -> None:
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    places = re.findall(r"`([\w.]+/[\w./]*)`", page)
    assert len(places) >= 25
    assert [place for place in places if not (root / place).exists()] == []


def test_the_test_on_the_page_passes(root: Path) -> None:
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert example is not None
    there: dict[str, object] = {}
    exec(compile(example.group(1), "CONTRIBUTING.md", "exec"), there)
    run = there["test_accuracy_is_the_share_that_scikit_learn_counts"]
    assert callable(run)
    run()


def test_hooks_are_programs_of_the_dev_extra(root: Path) -> None:
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    programs = {hook["entry"].split()[0] for hook in hooks}
    assert programs == {"ruff", "mypy"}
    assert all(
        any(line.startswith(program) for line in extras["dev"]) for program in [*programs, "pre-commit"]
    )
    assert all(hook["language"] == "system" for hook in hooks)
