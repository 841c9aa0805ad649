"""Public names, published contracts, and the size of files."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import xbackend_fl
from xbackend_fl.testing.publish import published

pytestmark = pytest.mark.quick

PACKAGES = [
    "xbackend_fl",
    *(f"xbackend_fl.{m.name}" for m in pkgutil.iter_modules(xbackend_fl.__path__) if m.ispkg),
]


@pytest.mark.parametrize("name", PACKAGES)
def test_everything_named_public_is_there(name: str) -> None:
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", []):
        assert getattr(module, public) is not None
    assert module.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = xbackend_fl.nonsense


def test_published_schemas_are_current(root: Path) -> None:
    for name, text in published().items():
        path = root / "schemas" / name
        assert path.read_text() == text, f"run: python -m xbackend_fl.testing.publish schemas ({name})"
        assert json.loads(text)["$schema"]


def test_every_room_has_its_page(root: Path) -> None:
    rooms = [root / name.replace(".", "/") for name in PACKAGES]
    folders = [*rooms, root / "adapters", root / "adapters/xbfl_torch", root / "adapters/xbfl_tensorflow"]
    missing = [
        folder.name
        for folder in folders
        if not (folder / "README.md").is_file() and folder.name != "xbackend_fl"
    ]
    assert not missing


def test_pages_name_files_that_are_there(root: Path) -> None:
    pages = [
        *root.glob("xbackend_fl/**/README.md"),
        *root.glob("adapters/**/README.md"),
        *(page for page in root.glob("docs/**/*.md") if page.parent.name != "decisions"),
    ]
    pages += [root / "README.md", root / "CONTRIBUTING.md"]
    there = {
        file.name
        for folder in ("xbackend_fl", "adapters", "tests", "examples", "docs")
        for file in root.glob(f"{folder}/**/*.py")
    }
    users = {"net.py", "keras_net.py", "data.py", "lyon.py", "loop.py", "use.py"}
    named = {(page, name) for page in pages for name in re.findall(r"`(?:\w+/)*(\w+\.py)`", page.read_text())}
    gone = sorted(f"{page.relative_to(root)}: {name}" for page, name in named if name not in there | users)
    assert not gone


def test_decisions_are_numbered_and_found(root: Path) -> None:
    folder = root / "docs/decisions"
    index = (folder / "index.md").read_text(encoding="utf-8")
    pages = sorted(page for page in folder.glob("*.md") if page.name != "index.md")
    assert [int(page.name[:3]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert f"({page.name})" in index, page.name
        text = page.read_text(encoding="utf-8")
        assert re.match(
            rf"# {int(page.name[:3])}\. .+\n\n\d{{4}}-\d\d-\d\d, `[\w/]+`\n\n## Decision\n\n.+\n", text
        ), page.name


def test_rooms_keep_no_decisions_of_their_own(root: Path) -> None:
    rooms = [
        page
        for folder in ("xbackend_fl", "adapters", "tests")
        for page in root.glob(f"{folder}/**/README.md")
    ]
    dated = [page for page in rooms if re.search(r"^\* 2\d{3}-\d\d-\d\d: ", page.read_text(), re.MULTILINE)]
    assert rooms
    assert not dated, "a decision is a file, docs/decisions/NNN-title.md, with a row in index.md there"


def test_no_file_outgrows_its_purpose(root: Path) -> None:
    files = [*root.glob("xbackend_fl/**/*.py"), *root.glob("adapters/**/*.py")]
    lengths = {str(file.relative_to(root)): len(file.read_text().splitlines()) for file in files}
    assert max(lengths.values()) <= 500, max(lengths, key=lambda name: lengths[name])
    assert sorted(lengths.values())[len(lengths) // 2] <= 150


def test_sibling_adapters_name_the_same_thing_alike(root: Path) -> None:
    left, right = (
        {f.name for f in (root / "adapters" / n).glob("*.py")} for n in ("xbfl_torch", "xbfl_tensorflow")
    )
    assert {
        "__init__.py",
        "describe.py",
        "graph.py",
        "layers.py",
        "operations.py",
        "sequences.py",
    } <= left & right
    assert {"constants.py", "trainer.py"} <= left & right


def test_the_readme_uses_the_tested_versions(root: Path) -> None:
    constraints = (root / "constraints.txt").read_text()
    for package in ("torch==2.13.0", "tensorflow==2.21", "keras==3.15", "onnx==1.23", "onnxruntime==1.31"):
        assert re.search(rf"^{re.escape(package)}", constraints, re.MULTILINE), package
    readme = (root / "README.md").read_text()
    assert readme.count("-c constraints.txt") >= 2
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"torch", "tensorflow", "all", "dev"} <= extras.keys()


def test_the_map_and_the_guide_name_every_room(root: Path) -> None:
    contract = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    rooms = {room.strip() for floor in contract["contracts"][0]["layers"] for room in floor.split("|")}
    named = {
        "README.md": {room for room in rooms if (root / "xbackend_fl" / room).is_dir()},
        "docs/guides/house.md": rooms,
    }
    for page, wanted in named.items():
        text = (root / page).read_text(encoding="utf-8")
        table = text[text.index("| room |") :]
        assert {room for room in wanted if f"`{room}`" not in table} == set(), page
