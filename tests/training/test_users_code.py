"""Whatever a user's function raises is one line with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbackend_fl.errors import ConfigError
from xbackend_fl.locate import call

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
