"""Encodings of updates: what they lose is bounded and comes later; what is no encoding is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from xbackend_fl.canonical import Kind
from xbackend_fl.errors import UpdateRefused
from xbackend_fl.federation.protocol.message import Message
from xbackend_fl.federation.protocol.payload import Encoding, Payload, decode, encode
from xbackend_fl.weights import Weights

pytestmark = pytest.mark.quick

KINDS: list[Encoding] = ["float32", "bfloat16", "float16", "int8", "top-k"]
SMALL = KINDS[1:]


def weights(seed: int, size: int = 3000) -> Weights:
    draw = np.random.default_rng(seed)
    found: dict[str, Any] = {
        "w": draw.standard_normal((size // 30, 30), dtype=np.float32),
        "mean": draw.standard_normal(7, dtype=np.float32),
        "count": np.array(seed, np.int64),
        "frozen": np.ones(3, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
    kinds = dict.fromkeys(found, Kind.TRAINABLE)
    kinds |= {"mean": Kind.STATISTIC, "count": Kind.COUNTER, "frozen": Kind.FROZEN}
    return Weights(found, "print", kinds)


BASE = weights(1)
UPDATE = BASE.like({n: a + (0.01 * weights(2)[n]).astype(a.dtype) for n, a in BASE.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_what_arrives_is_what_was_sent_and_the_rest_is_known(kind: Encoding) -> None:
    payload = Payload(kind, share=0.1)
    sent, left = encode(UPDATE, BASE, payload, {})
    over = Message.from_bytes(Message("trained", {}, sent).to_bytes(), "a silo").arrays
    found = decode(over, BASE, payload)
    np.testing.assert_array_equal(found["count"], UPDATE["count"])
    # What is frozen is as it was, whatever a silo has made of it.
    np.testing.assert_array_equal(found["frozen"], BASE["frozen"])
    for name in ("w", "mean"):
        rest = left[name].reshape(UPDATE[name].shape) if left else 0
        np.testing.assert_allclose(found[name] + rest, UPDATE[name], rtol=0, atol=3e-7)
        assert kind != "float32" or found[name].tobytes() == UPDATE[name].tobytes()


@pytest.mark.parametrize(
    ("kind", "most"), [("float32", 4.0), ("bfloat16", 2.0), ("float16", 2.0), ("int8", 1.01), ("top-k", 0.81)]
)
def test_bytes_a_value(kind: Encoding, most: float) -> None:
    big = weights(1, size=300_000)
    sent, _ = encode(big, weights(2, size=300_000), Payload(kind, share=0.1), {})
    assert len(Message("trained", {}, sent).to_bytes()) / 300_000 < most + 0.01


@pytest.mark.parametrize("kind", SMALL)
def test_what_was_left_out_comes_later(kind: Encoding) -> None:
    """The sum of many decoded differences follows the sum of the true ones: the error does not grow with the number of rounds."""
    payload, left = Payload(kind, share=0.05), dict[str, Any]()
    wanted = np.zeros(BASE["w"].shape)
    got = np.zeros(BASE["w"].shape)
    errors = []
    for number in range(60):
        step = 0.01 * np.random.default_rng(number % 3).standard_normal(BASE["w"].shape).astype(np.float32)
        update = BASE.like({**BASE, "w": BASE["w"] + step})
        sent, left = encode(update, BASE, payload, left)
        wanted += update["w"].astype(np.float64) - BASE["w"]
        got += decode(sent, BASE, payload)["w"].astype(np.float64) - BASE["w"]
        errors.append(float(np.abs(wanted - got).max()))
    # Without feedback the errors of 60 rounds would add up: top-k alone would never send nineteen values of twenty.
    assert max(errors[40:]) < 2 * max(errors[:40])
    assert max(errors) < {"bfloat16": 2e-4, "float16": 2e-5, "int8": 1e-3, "top-k": 0.6}[kind]


@given(arrays.arrays(np.float32, st.integers(1, 3000), elements=st.floats(-100, 100, width=32)))
def test_int8_is_within_half_a_step(values: np.ndarray[Any, Any]) -> None:
    base = Weights({"w": np.zeros_like(values)}, "print")
    sent, left = encode(Weights({"w": values}, "print"), base, Payload("int8"), {})
    steps = np.repeat(sent["scales/w"], 1024)[: values.size]
    assert (np.abs(left["w"]) <= 0.5 * steps * 1.001 + 1e-12).all()


def test_top_k_sends_the_largest() -> None:
    sent, _ = encode(UPDATE, BASE, Payload("top-k", share=0.1), {})
    change = np.abs(UPDATE["w"] - BASE["w"]).reshape(-1)
    assert change[sent["places/w"]].min() >= np.delete(change, sent["places/w"]).max()


@pytest.mark.parametrize("kind", SMALL)
def test_nan_reaches_the_check_of_the_server(kind: Encoding) -> None:
    """An integer cannot be NaN: whatever the encoding, a NaN must not arrive as a number."""
    spoilt = UPDATE["w"].copy()
    spoilt[3, 4] = np.nan
    payload = Payload(kind, share=0.1)
    sent, _ = encode(UPDATE.like({**UPDATE, "w": spoilt}), BASE, payload, {})
    assert not np.isfinite(decode(sent, BASE, payload)["w"]).all()


def test_float16_says_what_does_not_fit() -> None:
    large = UPDATE.like({**UPDATE, "w": UPDATE["w"] + 1e6})
    with pytest.raises(UpdateRefused, match="'w' changed by more than float16 can hold"):
        encode(large, BASE, Payload("float16"), {})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["missing", "extra", "short", "dtype"])
def test_what_is_no_encoding(kind: Encoding, fault: str) -> None:
    payload = Payload(kind, share=0.1)
    sent, _ = encode(UPDATE, BASE, payload, {})
    name = next(n for n in sent if n.endswith("w"))
    if fault == "missing":
        del sent[name]
    elif fault == "extra":
        sent["more"] = np.zeros(1, np.float32)
    elif fault == "short":
        sent[name] = sent[name][:-1]
    else:
        sent[name] = sent[name].astype(np.float64)
    with pytest.raises(UpdateRefused, match="parameter"):
        decode(sent, BASE, payload)


@pytest.mark.parametrize("places", [[1, 1], [2, 1], [0, 3000]])
def test_places_increase_within_the_parameter(places: list[int]) -> None:
    payload = Payload("top-k", share=2 / 3000)
    sent, _ = encode(UPDATE, BASE, payload, {})
    sent["places/w"] = np.array(places, np.uint32)
    with pytest.raises(UpdateRefused, match="places do not increase"):
        decode(sent, BASE, payload)


def test_a_scale_is_not_negative() -> None:
    sent, _ = encode(UPDATE, BASE, Payload("int8"), {})
    sent["scales/w"] = -sent["scales/w"]
    with pytest.raises(UpdateRefused, match="scale is negative"):
        decode(sent, BASE, Payload("int8"))
