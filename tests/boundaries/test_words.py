"""One word per thing: the glossary, the README's length, and words that the field does not know."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

# What was renamed, and to what. A name is a whole identifier; a word is a part of one, as in `lane_count` or `LaneCount`.
NAMES = {
    "Bone": "CoreNode",
    "bone": "core_node",
    "Bound": "BoundModel",
    "BindAsked": "BindRequest",
    "Descent": "LocalStepper",
    "EvaluateAsked": "EvaluateRequest",
    "Factors": "OuterProduct",
    "Held": "FrozenValues or StoredArray",
    "HeldObject": "RegisteredObject",
    "Lane": "Replica",
    "Letter": "BufferRef",
    "Misread": "ReadingError",
    "Part": "MetricState, TensorSlice or shard",
    "Partial": "PartialAggregate",
    "Resident": "CohortTrainer",
    "SaveAsked": "SaveRequest",
    "Told": "EventBatch",
    "TrainAsked": "TrainRequest",
    "advance": "on_progress",
    "bones": "core_nodes",
    "export_weights": "read",
    "gone_s": "grace_s",
    "hellos": "announcements",
    "import_weights": "write",
    "join_within_s": "join_timeout_s",
    "most_examples": "max_examples",
    "expects": "is_available",
    "full_disk_said": "explain_full_disk",
    "held_values": "frozen_values",
    "meeting": "enrollment",
    "movement": "axes_ops",
    "of_bytes": "from_bytes",
    "of_fields": "from_fields",
    "own_said": "own_training_note",
    "precision_said": "precision_note",
    "round_within_s": "round_timeout_s",
    "silenced": "masked",
    "spellings": "patterns.activations",
    "take_reference": "fetch_reference",
    "trains_cohorts": "supports",
    "troubles": "last_errors",
    "unwritable_said": "explain_unwritable",
    "whole_or_absent": "atomic_write",
}
WORDS = {
    "desk": "SharedBuffer",
    "fewest": "min",
    "mail": "shared_memory",
    "most": "max",
    "resident": "CohortTrainer",
    "treaty": "schema",
    "visitor": "clientapp_shim",
}

# What said nothing, or five things at once. A local variable, a parameter and what is private may be called so where it is plain English
# there: `at` is a position in a few lines of code that a reader sees whole. A name that other files call must say what it is by itself.
PUBLIC = {
    "advance": "on_progress",
    "alone": "from_weights",
    "at": "read, per_position or the field's word",
    "computed": "expressions",
    "factors": "outer_product",
    "held": "frozen, stored or registered",
    "hold": "cover or register_object",
    "meet": "wait_for_silos",
    "miss": "reject",
    "of": "from_text, from_array …",
    "open": "load, open_weights or verify",
    "part": "slice_axis, window or state",
    "place": "location, to_device or choose_placement",
    "say": "echo or emit",
    "share": "publish or shard",
    "shares": "shards",
    "sharing": "balance",
    "tables": "lookups, embeddings or single_rows",
    "take": "gather, read or receive",
    "tell": "emit",
    "visit": "clientapp_shim",
    "warm": "forkserver",
    "written": "write",
}
# A share of a whole, as every course names it, is no shard.
KEYS = {
    ("xbackend_fl/federation/protocol/payload.py", "share"),
    ("xbackend_fl/federation/protocol/requests.py", "share"),
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


def _public(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Functions, methods, classes and fields that other files may call; nothing inside a function or a private class."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield child.lineno, name
            case ast.ClassDef(name=name):
                yield child.lineno, name
                if not name.startswith("_"):
                    yield from _public(child)
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield child.lineno, name
            case ast.Assign(targets=targets):
                yield from ((child.lineno, one.id) for one in targets if isinstance(one, ast.Name))
            case ast.If() | ast.Try() | ast.With():
                yield from _public(child)


def _empty(text: str) -> list[str]:
    """Public names of a file that say nothing."""
    return [
        f"{line}: {name}, say {PUBLIC[name]}" for line, name in _public(ast.parse(text)) if name in PUBLIC
    ]


@functools.cache
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


def test_a_public_name_says_what_it_is(root: Path) -> None:
    files = [*root.glob("xbackend_fl/**/*.py"), *root.glob("adapters/**/*.py")]
    found = [
        f"{path}:{found}"
        for path, file in ((file.relative_to(root).as_posix(), file) for file in files)
        for found in _empty(file.read_text(encoding="utf-8"))
        if (path, found.split()[1].rstrip(",")) not in KEYS
    ]
    assert found == []
    assert [file.name for file in files if file.stem in PUBLIC] == []


@pytest.mark.parametrize(
    "planted",
    [
        "def open(path): ...",
        "class Source:\n    def at(self): ...",
        "class Update:\n    @staticmethod\n    def of(weights): ...",
        "class Rule:\n    tables: dict",
        "if True:\n    async def tell(event): ...",
        "take = print",
    ],
)
def test_an_empty_public_name_is_seen(planted: str) -> None:
    assert _empty(planted)


@pytest.mark.parametrize(
    "private",
    [
        "def _open(path): ...",
        "class _Window:\n    def tell(self): ...",
        "def read(of):\n    at = of\n    return at",
    ],
)
def test_what_only_its_own_lines_call_may_be_short(private: str) -> None:
    assert _empty(private) == []


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


@pytest.mark.parametrize(
    "identifier", ["Desk", "_DeskOf", "desks", "troubles", "_gone_s", "most_bytes", "_MOST", "HeldObject"]
)
def test_an_old_word_is_seen_wherever_it_stands(identifier: str) -> None:
    assert _old(identifier)


@pytest.mark.parametrize("identifier", ["lanes", "emails", "hello", "gone_seconds", "almost", "utmost"])
def test_a_word_that_holds_another_is_none(identifier: str) -> None:
    assert _old(identifier) is None


def test_the_glossary_has_few_terms_of_one_sentence(root: Path) -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", (root / "docs/glossary.md").read_text(), re.MULTILINE)
    assert 10 <= len(rows) <= 20
    for term, meaning in rows:
        assert re.fullmatch(r"[^.]+(\.\w[^.]*)*\.", meaning), term


def test_the_readme_is_read_in_five_minutes(root: Path) -> None:
    assert len((root / "README.md").read_text(encoding="utf-8").split()) <= 900
