"""What pages for contributors say is true."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from xbackend_fl.course import Course

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


def test_pages_of_the_api_name_what_is_there(root: Path) -> None:
    names = [
        name
        for page in root.glob("docs/api/*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    ]
    assert len(names) >= 50
    gone = [name for name in names if not _has(*name.rsplit(".", 1))]
    assert not gone


def _has(module: str, member: str) -> bool:
    return hasattr(importlib.import_module(module), member)


def test_links_lead_to_files(root: Path) -> None:
    gone = [
        f"{page.relative_to(root)}: {target}"
        for page in [*_pages(root), *root.glob("docs/decisions/index.md"), root / "CONTRIBUTING.md"]
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not gone


def test_contributors_read_one_page_in_two_places(root: Path) -> None:
    """It is a page of the site too, from where its links would lead elsewhere."""
    assert not re.findall(r"\]\((?!https?:)", (root / "CONTRIBUTING.md").read_text(encoding="utf-8"))


def _is_a_key(path: list[str], section: object = Course) -> bool:
    if not path:
        return True
    found: dict[str, object] = {}
    for kind in _kinds(section):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {name: field.annotation for name, field in kind.model_fields.items()}
        elif isinstance(kind, type) and is_dataclass(kind):
            found |= {field.name: field.type for field in fields(kind)}
    return path[0] in found and _is_a_key(path[1:], found[path[0]])


def _kinds(annotation: object) -> Iterator[object]:
    yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


def _pages(root: Path) -> list[Path]:
    pages = [page for page in root.glob("docs/**/*.md") if page.parent.name != "decisions"]
    return [
        *pages,
        root / "README.md",
        *root.glob("xbackend_fl/**/README.md"),
        *root.glob("adapters/**/README.md"),
    ]


def test_pages_name_keys_that_a_course_has(root: Path) -> None:
    keys = re.compile(r"`((?:data|training|federate|deployment)(?!\.py|\.json)(?:\.[a-z_]+)+)(?=[`:=])")
    named = [
        (page.name, key) for page in _pages(root) for key in keys.findall(page.read_text(encoding="utf-8"))
    ]
    assert len(named) >= 15
    assert [(page, key) for page, key in named if not _is_a_key(key.split("."))] == []


def test_courses_on_pages_are_courses(root: Path) -> None:
    blocks = [
        block
        for page in _pages(root)
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    whole = [yaml.safe_load(block) for block in blocks if "rounds:" in block]
    assert len(whole) >= 3
    for course in whole:
        Course.model_validate(course)
    for part in (yaml.safe_load(block) for block in blocks if "rounds:" not in block):
        for section, said in part.items():
            keys = said if isinstance(said, dict) else {key for entry in said for key in entry}
            assert [key for key in keys if not _is_a_key([section, key])] == []


def test_hooks_are_programs_of_the_dev_extra(root: Path) -> None:
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    programs = {hook["entry"].split()[0] for hook in hooks}
    assert programs == {"ruff", "mypy"}
    assert all(
        any(line.startswith(program) for line in extras["dev"]) for program in [*programs, "pre-commit"]
    )
    assert all(hook["language"] == "system" for hook in hooks)
