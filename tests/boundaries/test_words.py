"""One word per thing: the glossary, the README's length, and words that the field does not know."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

# What was renamed, and to what. A name is a whole identifier; a word is a part of one, as in `lane_count` or `LaneCount`.
NAMES = {
    "Bone": "CoreNode",
    "Bound": "BoundModel",
    "Descent": "LocalStepper",
    "Lane": "Replica",
    "Letter": "BufferRef",
    "Partial": "PartialAggregate",
    "Resident": "CohortTrainer",
    "advance": "on_progress",
    "bones": "core_nodes",
    "export_weights": "read",
    "gone_s": "grace_s",
    "hellos": "announcements",
    "import_weights": "write",
    "join_within_s": "join_timeout_s",
    "most_examples": "max_examples",
    "movement": "axes_ops",
    "round_within_s": "round_timeout_s",
    "silenced": "masked",
    "spellings": "patterns.activations",
    "take_reference": "fetch_reference",
    "trains_cohorts": "supports",
    "troubles": "last_errors",
    "whole_or_absent": "atomic_write",
}
WORDS = {
    "desk": "SharedBuffer",
    "mail": "shared_memory",
    "resident": "CohortTrainer",
    "treaty": "schema",
    "visitor": "clientapp_shim",
}


def _identifiers(file: Path) -> Iterator[tuple[int, str]]:
    yield 1, file.stem
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.lineno, node.name
            case ast.Name():
                yield node.lineno, node.id
            case ast.Attribute():
                yield node.lineno, node.attr
            case ast.arg():
                yield node.lineno, node.arg
            case ast.keyword(arg=str(name)):
                yield node.lineno, name


def _word(identifier: str) -> Iterator[str]:
    for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", identifier):
        yield word.lower().removesuffix("s")


def _old(identifier: str) -> str | None:
    """What should stand there instead."""
    found = [NAMES.get(identifier.strip("_"))] + [WORDS.get(word) for word in _word(identifier)]
    return next((new for new in found if new), None)


def test_code_speaks_the_field_s_words(root: Path) -> None:
    files = [*root.glob("xbackend_fl/**/*.py"), *root.glob("adapters/**/*.py")]
    old = [
        f"{file.relative_to(root)}:{line}: {identifier}, say {_old(identifier)}"
        for file in files
        for line, identifier in _identifiers(file)
        if _old(identifier)
    ]
    assert files
    assert not old


def test_pages_and_contracts_name_nothing_that_was_renamed(root: Path) -> None:
    pages = [page for page in root.glob("docs/**/*.md") if page.parent.name != "decisions"]
    pages += [
        root / "README.md",
        *root.glob("*/**/README.md"),
        *root.glob("schemas/*.json"),
        *root.glob("examples/**/*.yaml"),
    ]
    old = re.compile(rf"\b(?:{'|'.join(name for name in NAMES if '_' in name)})\b")
    found = [(page.name, *old.findall(page.read_text(encoding="utf-8"))) for page in pages]
    assert [names for names in found if names[1:]] == []


@pytest.mark.parametrize("identifier", ["Desk", "_DeskOf", "desks", "troubles", "_gone_s"])
def test_an_old_word_is_seen_wherever_it_stands(identifier: str) -> None:
    assert _old(identifier)


@pytest.mark.parametrize("identifier", ["lanes", "emails", "hello", "gone_seconds"])
def test_a_word_that_holds_another_is_none(identifier: str) -> None:
    assert _old(identifier) is None


def test_the_glossary_has_few_terms_of_one_sentence(root: Path) -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", (root / "docs/glossary.md").read_text(), re.MULTILINE)
    assert 10 <= len(rows) <= 20
    for term, meaning in rows:
        assert re.fullmatch(r"[^.]+(\.\w[^.]*)*\.", meaning), term


def test_the_readme_is_read_in_five_minutes(root: Path) -> None:
    assert len((root / "README.md").read_text(encoding="utf-8").split()) <= 900
