"""Messages survive the way, and damaged ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbackend_fl.errors import UpdateRefused
from xbackend_fl.federation import Message
from xbackend_fl.federation.protocol import message

pytestmark = pytest.mark.quick

SAMPLE = Message(
    "train", {"round": 3, "text": "naïve"}, {"w": np.arange(7, dtype=np.float32), "n": np.array(5)}
)
FRAME = SAMPLE.to_bytes()


def test_there_and_back() -> None:
    found = Message.from_bytes(FRAME, "berlin")
    assert (found.kind, found.fields) == (SAMPLE.kind, SAMPLE.fields)
    for name, array in SAMPLE.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype


@given(st.integers(0, len(FRAME) - 1), st.integers(1, 255))
def test_any_altered_byte_is_refused(place: int, change: int) -> None:
    frame = bytearray(FRAME)
    frame[place] ^= change
    with pytest.raises(UpdateRefused, match="berlin sent a frame that cannot be read"):
        Message.from_bytes(bytes(frame), "berlin")


@given(st.integers(0, len(FRAME) - 1))
def test_a_frame_cut_short_is_refused(length: int) -> None:
    with pytest.raises(UpdateRefused, match="cannot be read"):
        Message.from_bytes(FRAME[:length], "berlin")


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(UpdateRefused):
        Message.from_bytes(noise, "berlin")


def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message, "PROTOCOL", "0")
    old = SAMPLE.to_bytes()
    monkeypatch.undo()
    with pytest.raises(UpdateRefused, match="berlin speaks protocol '0', expected '3'") as caught:
        Message.from_bytes(old, "berlin")
    assert "same version" in str(caught.value.hint)


def test_fields_are_an_object() -> None:
    with pytest.raises(UpdateRefused, match="what it says is a list"):
        Message.from_bytes(Message("train", [1]).to_bytes(), "berlin")  # type: ignore[arg-type]


TRACEBACK = 'Traceback (most recent call last):\n  File "/home/someone/net.py", line 1\nValueError: no'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (TRACEBACK, "ValueError: no"),
        ("see /home/someone/net.py", "see …/net.py"),
        (r"see C:\Users\someone\net.py", "see …/net.py"),
        ("\x1b]0;x\x07", r"\x1b]0;x\x07"),
        (r"\x1b]0;x\x07", r"\x1b]0;x\x07"),
    ],
)
def test_a_text_for_another_organisation(text: str, shown: str) -> None:
    assert message.public(text) == shown
    assert message.public(shown) == shown


def test_what_stands_in_the_wrong_place_is_quoted_without_folders() -> None:
    assert message.quoted(TRACEBACK) == "'ValueError: no'"
    assert message.quoted([TRACEBACK]).count("/home/") == 0
    assert message.quoted(5) == "5"
