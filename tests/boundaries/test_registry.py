"""A file of a registry that is none is named when the room is imported, with what it lacks."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from xbackend_fl.errors import ConfigError
from xbackend_fl.registry import Registered, discover_kinds

pytestmark = pytest.mark.quick

HEAD = "from dataclasses import dataclass\nfrom xbackend_fl.registry import Registered\n"
FILES = {
    "": "brier has no KIND|brier.py has no KIND",
    "KIND = 3": "KIND of kinds.brier is 3, expected a class made of Registered",
    "class A(Registered):\n    name = 'brier'\nKIND = A": "A is no dataclass",
    "@dataclass(frozen=True)\nclass A(Registered):\n    name: str = 'brier'\nKIND = A()": "expected a class made of Registered",
    "@dataclass(frozen=True)\nclass A(Registered):\n    name: str = 'accuracy'\nKIND = A": "A.name is 'accuracy' by default",
    "@dataclass(frozen=True)\nclass A(Registered):\n    delta: float = 1\nKIND = A": "A.name is None by default",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("kinds")
    made.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "kinds", made)
    monkeypatch.delitem(sys.modules, "kinds.brier", raising=False)
    return made


@pytest.mark.parametrize("text", FILES)
def test_a_file_that_is_no_kind_is_named(package: types.ModuleType, text: str, tmp_path: Path) -> None:
    (tmp_path / "brier.py").write_text(HEAD + text)
    with pytest.raises(ConfigError, match=FILES[text]) as refused:
        discover_kinds(package, "KIND", Registered)
    assert refused.value.hint
    sys.modules.pop("kinds.brier")


def test_the_cure_is_one(package: types.ModuleType, tmp_path: Path) -> None:
    text = "@dataclass(frozen=True)\nclass A(Registered):\n    name: str = 'brier'\nKIND = A"
    (tmp_path / "brier.py").write_text(HEAD + text)
    assert [*discover_kinds(package, "KIND", Registered)] == ["brier"]
    sys.modules.pop("kinds.brier")
