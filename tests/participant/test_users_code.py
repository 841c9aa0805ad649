"""Whatever a user's function raises is one line with its place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xbackend_fl.errors import ConfigError
from xbackend_fl.locate import call
from xbackend_fl.places import defined_at, is_library, place_of, users_place

pytestmark = pytest.mark.quick

KINDS = """\
class Mute(Exception):
    def __str__(self):
        raise ValueError("no text")


class NoText(Exception):
    def __str__(self):
        return 3


class Own(BaseException):
    pass


def load():
    raise RAISED
"""


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("Mute()", "no message"),
        ("NoText()", "no message"),
        ("Own('gone')", "gone"),
        ("GeneratorExit('closed')", "closed"),
        ("BaseExceptionGroup('both', [Own('gone')])", "both (1 sub-exception)"),
    ],
)
def test_any_exception_is_one_line_with_its_place(tmp_path: Path, raised: str, said: str) -> None:
    file = tmp_path / "data.py"
    file.write_text(KINDS.replace("RAISED", raised))
    with pytest.raises(ConfigError) as caught:
        call(f"{file}:load", tmp_path)
    kind = raised.partition("(")[0]
    assert str(caught.value) == f"{file}:load raised {kind} ({file}:16): {said}"


def test_an_exception_of_a_file_that_is_read(tmp_path: Path) -> None:
    file = tmp_path / "data.py"
    file.write_text("class Own(BaseException): pass\nraise Own('gone')\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"raised Own \(.*data\.py:2\): gone"):
            call(f"{file}:load", tmp_path)


def test_an_interrupt_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "data.py"
    file.write_text(KINDS.replace("RAISED", "KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        call(f"{file}:load", tmp_path)


def test_a_users_code_is_not_a_librarys(tmp_path: Path) -> None:
    libraries = [
        np.__file__, json.__file__, call.__code__.co_filename, users_place.__code__.co_filename, "<string>", "<frozen runpy>",
        "numpy/random/_generator.pyx", "/opt/venv/lib/python3.12/site-packages/a.py", "/usr/lib/python3/dist-packages/a.py",
    ]  # fmt: skip
    assert all(map(is_library, libraries))
    own = [
        __file__,
        str(tmp_path / "net.py"),
        "net.py",
        "/home/a/site-packages-of-mine/net.py",
        "/home/a/dist-packages.py",
    ]
    assert not any(map(is_library, own))


def test_a_file_that_a_user_names_is_the_users_wherever_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "site-packages" / "net.py"
    file.parent.mkdir()
    file.write_text("def build():\n    return 1 / 0\n")
    with pytest.raises(ConfigError, match=r"site-packages.net\.py:2"):
        call(f"{file}:build", tmp_path)


def test_the_innermost_call_of_the_users_behind_the_toolkit() -> None:
    toolkit, library = call.__code__.co_filename, np.__file__
    frames = [("main.py", 1), (toolkit, 2), ("net.py", 3), (library, 4), ("block.py", 5), (library, 6)]
    assert users_place(frames) == "block.py:5"
    assert users_place([("main.py", 1), (toolkit, 2), (library, 3)]) == ""
    assert users_place([("main.py", 1), (library, 2)]) == "main.py:1"
    assert users_place([(f"{Path.cwd()}/net.py", 1)]) == "net.py:1"


def test_what_was_never_executed_lies_where_it_is_defined(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("def build(x):\n    return (\n")
    with pytest.raises(ConfigError, match=r"SyntaxError \(.*net\.py:2\)"):
        call(f"{file}:build", tmp_path)
    file.write_text("\n\ndef build(x):\n    return x\n")
    with pytest.raises(
        ConfigError, match=r"raised TypeError \(.*net\.py:3\).*missing 1 required positional argument: 'x'"
    ):
        call(f"{file}:build", tmp_path)
    assert place_of(ValueError()) == ""
    assert place_of(ValueError(), test_an_interrupt_goes_on).startswith(
        "tests/participant/test_users_code.py:"
    )
    assert defined_at(3) == ""
