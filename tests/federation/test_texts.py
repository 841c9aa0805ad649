"""Whatever text a silo sends, wherever it stands: no place where people read holds more than one harmless line of it."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.federation.campaign import write_course
from tests.federation.hostile import ASKED, Trial, frame_of, harmless, plain_json
from tests.federation.links import Altered, light, one_round
from xbackend_fl.errors import XbflError
from xbackend_fl.federation import Message

TEXTS = st.one_of(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=40),
    st.text(
        alphabet="\x1b[2J\n\r\t\x00\x07\x7f\x85\x9b\u200b\u202e\u2028\u2029\ufeff\U000e0001/hometmp x",
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(["/home/someone/x.py", "a\nerror: forged", "\x1b]0;t\x07", "\n" * 5000, "x" * 60_000]),
)

Change = Callable[[Message, str], Message]


def field(name: str) -> Change:
    return lambda m, text: replace(m, fields={**m.fields, name: text})


def key(name: str) -> Change:
    """A text as a key beside the others."""
    return lambda m, text: replace(m, fields={**m.fields, name: {**(m.fields.get(name) or {}), text: 1}})


def array(m: Message, text: str) -> Message:
    return replace(m, arrays={**m.arrays, text[:100]: next(iter(m.arrays.values()))})


def refusal(kind: str) -> Change:
    return lambda _, text: Message(kind, {"message": text, "hint": text})


def schema(m: Message, text: str) -> Message:
    said = m.fields["schema"].replace('"dense', '"' + json.dumps(text)[1:-1])
    return replace(m, fields={**m.fields, "schema": said})


def label(m: Message, text: str) -> Message:
    about = {**m.fields["about"], "cases": m.fields["about"]["cases"].replace('"one"', json.dumps(text))}
    return replace(
        m,
        fields={**m.fields, "about": about},
        arrays={n: a if "outputs" not in n else a + 1 for n, a in m.arrays.items()},
    )


CHANGES: list[tuple[str, Change]] = [
    *(("hello", field(name)) for name in ("name", "backend", "version", "num_examples")),
    *(("evidence", change) for change in (schema, label, field("schema"), field("about"), array)),
    *(("bound", field(name)) for name in ("fingerprint", "notes", "largest_error")),
    ("bound", lambda m, text: replace(m, fields={**m.fields, "notes": [text]})),
    *(
        ("trained", field(name))
        for name in ("run", "round", "base", "silo", "num_examples", "metrics", "before")
    ),
    *(("trained", change) for change in (key("metrics"), key("before"), array)),
    *(("metrics", change) for change in (key("test"), key("validation"), field("test"))),
    ("outputs", array),
    *(
        (step, refusal(kind))
        for step in ("hello", "evidence", "bound", "trained", "metrics", "outputs")
        for kind in ("refused", "raised")
    ),
    *(
        (step, lambda m, text: replace(m, kind=text))
        for step in ("hello", "evidence", "bound", "trained", "metrics", "outputs")
    ),
]
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    with tempfile.TemporaryDirectory(dir=_MEMORY) as name:
        found = Trial(Path(name))
        yield found
        found.close()


class Kept(logging.Handler):
    """What is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.sampled_from(CHANGES), text=TEXTS, about=st.sampled_from(["kind", "protocol", None]))
def test_no_text_of_a_silo_does_anything_where_it_is_shown(
    change: tuple[str, Change], text: str, about: str | None, trial: Trial
) -> None:
    """Events, their file, the console, the ledger (by its owner, at the end) and the log."""
    step, changed = change
    valid = Message.from_bytes(trial.valid[ASKED.get(step, step)], "a silo")
    message = changed(valid, text)
    frame = frame_of(
        message.kind, plain_json(dict(message.fields)), message.arrays, {about: text} if about else {}
    )
    kept = Kept()
    logging.getLogger("xbfl").addHandler(kept)
    try:
        trial.try_one(step, frame)
    finally:
        logging.getLogger("xbfl").removeHandler(kept)
    assert all(map(harmless, kept.lines))
    for event in trial.events:
        for said in _texts(event.model_dump(mode="json")):
            assert harmless(said)
            assert "\n" not in said
            assert len(said) <= 1000


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for pair in value.items():
                yield from _texts(list(pair))
        case list():
            for item in value:
                yield from _texts(item)
        case _:
            pass


@settings(max_examples=25, deadline=None)
@given(change=st.sampled_from([c for c in CHANGES if c[0] not in {"metrics", "outputs"}]), text=TEXTS)
def test_nor_in_the_reason_why_a_course_ends(change: tuple[str, Change], text: str) -> None:
    """Without a quorum: a line of ours, and one about each silo, that the silo cannot make two."""
    step, changed = change
    with tempfile.TemporaryDirectory(dir=_MEMORY) as name:
        folder = Path(name)
        course = write_course(
            folder / "course",
            rounds=1,
            silos=2,
            size="5x3",
            more="deployment: {join_timeout_s: 0.1, round_timeout_s: 0.2}\n",
        )
        link = Altered(light(course), course.participants[0].name, lambda m: changed(m, text), step)
        reason, hint = "", ""
        try:
            one_round(course, link, folder / "run")
        except XbflError as error:
            reason, hint = error.message, error.hint or ""
    # A cure of the silo's is a line, and ours is another.
    for said in (reason, hint):
        assert len(said.split("\n")) <= 2
    for part in [*reason.split("\n"), *hint.split("\n")]:
        assert harmless(part)
        assert len(part) <= 1100
