"""Text from elsewhere does nothing to a terminal, a log, an event or a report. The oracle is Unicode's own table."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from xbackend_fl.cli.main import main
from xbackend_fl.errors import FileError, RunFailed, shortened
from xbackend_fl.events import ModelBound, Noted, ParticipantFailed, from_line, to_line
from xbackend_fl.text import LINE, line, lines

pytestmark = pytest.mark.quick

HARMLESS = {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No"}
HARMLESS |= {"Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So"}
ATTACKS = [
    "\x1b[2J\x1b[H clears the screen",
    "\x1b]0;title\x07 and \x1b]52;c;Y2xpcA==\x07",
    "\x9b2J by one byte of C1",
    "right\u202eto\u2066left\u200f\u061c",
    "zero\u200bwidth\u2060and\ufeffmarks\u00ad",
    "line\u2028and\u2029paragraph\x85next\x0b\x0c",
    "half \ud800 of \udfff a character",
    "\x00NUL\x7fDEL\b\b\bback",
    "private \ue000 and unassigned \U000e0001\U000e0041",
    "a" * 60_000,
    "\n" * 60_000,
    "[" * 30_000,
]
TEXT = st.one_of(
    st.text(max_size=80), st.text(st.characters(codec=None), max_size=80), st.integers(0, len(ATTACKS) - 1)
)
"""Any text, or which of the attacks: Hypothesis shows what it drew, and these are long."""


def drawn(text: str | int) -> str:
    return ATTACKS[text] if isinstance(text, int) else text


def harmless(text: str) -> bool:
    return all(char == " " or unicodedata.category(char) in HARMLESS for char in text)


@given(TEXT)
def test_a_line_is_harmless_and_stays_as_it_is(draw: str | int) -> None:
    text = drawn(draw)
    found = line(text)
    assert harmless(found)
    assert len(found) <= LINE
    assert line(found) == found
    found.encode("utf-8")
    if harmless(text) and len(text) <= LINE:
        assert found == text.strip()


@given(TEXT)
def test_several_lines_keep_their_breaks(draw: str | int) -> None:
    text = drawn(draw)
    found = lines(text)
    assert found.count("\n") == text.count("\n")
    assert all(harmless(part) and len(part) <= 2 * LINE for part in found.split("\n"))
    assert lines(found) == found


def test_words_stay_words() -> None:
    assert line("São Tomé, 東京: naïve 😀 = 100 %") == "São Tomé, 東京: naïve 😀 = 100 %"
    assert line("one\n  two\r\nthree") == "one two three"
    assert line("\x1b[31mred") == r"\x1b[31mred"
    assert line("a\u202eb") == r"a\u202eb"
    assert line("x" * 5_000).endswith("x …")
    assert lines("error: no\n  = help: yes\x07") == "error: no\n  = help: yes\\x07"
    assert shortened(ValueError("a\nb" + "c" * 1000)).endswith("c …")
    assert shortened(ValueError()) == "ValueError"


@given(TEXT)
def test_an_event_is_one_harmless_line_of_json(draw: str | int) -> None:
    text = drawn(draw)
    for event in (
        ParticipantFailed(round=1, name="oslo", backend="torch", reason=text),
        Noted(backend=text, note=text),
        ModelBound(
            backend="b",
            version=text,
            fingerprint=text,
            reference=True,
            largest_error=0.0,
            notes=(text,),
            seconds=0.0,
        ),
    ):
        written = to_line(event)
        assert harmless(written)
        assert len(written) < 12 * LINE
        assert from_line(written) == event


@pytest.mark.parametrize("text", ATTACKS)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_command_prints(
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    as_json: bool,
) -> None:
    """An error's message and hint, and every text in a weight file."""
    from xbackend_fl.cli import inspect
    from xbackend_fl.cli import main as entry

    monkeypatch.setattr(sys, "argv", ["xbfl", *(["--json"] if as_json else [])])
    for error in (RunFailed(text, hint=text), FileError(f"error: {text}")):
        entry._report(error)
    path = tmp_path / "net.safetensors"
    plain = text.encode("utf-8", "replace").decode()
    save_file({"w": np.zeros(2, np.float32)}, path, {plain: "value", "key": plain})
    inspect.inspect(str(path), as_json=as_json)
    monkeypatch.setattr(sys, "argv", ["xbfl", "inspect", str(path)])
    with pytest.raises(SystemExit):
        main()
    captured = capsys.readouterr()
    for found in (captured.out, captured.err):
        for part in found.split("\n"):
            assert harmless(part), ascii(part)[:200]
            assert as_json or len(part) <= 2 * LINE
    if as_json:
        assert json.loads(captured.out.splitlines()[0])["error"]["message"] == text


@pytest.mark.parametrize("text", [*ATTACKS[:5], "[red]markup[/red]"])
def test_names_in_a_schema_file(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A schema comes from whoever coordinates a course."""
    from tests.federation.light import schema_of
    from xbackend_fl.cli import inspect

    path = tmp_path / "schema.json"
    plain = json.loads(schema_of(2, 2).to_json())
    plain["parameters"][0]["name"] = text
    path.write_text(json.dumps(plain), encoding="utf-8")
    inspect.inspect(str(path))
    found = capsys.readouterr().out
    assert all(harmless(part) for part in found.split("\n"))
    assert "[red]" not in text or "[red]" in found
