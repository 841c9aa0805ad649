"""Names of values in a graph: no two are the same, whatever the nodes of a user's file are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbackend_fl.canonical.graph.recorder import Recorder

pytestmark = pytest.mark.quick

NAMES = st.sampled_from(["a", "a@2", "a@3", "a@2@2", "a:1", "a:1@2", "b"])


@given(asked=st.lists(NAMES, max_size=30))
def test_made_up_names_and_given_ones_never_meet(asked: list[str]) -> None:
    recorder = Recorder("torch", {}, ())
    names = [recorder.unique(name) for name in asked]
    assert len(set(names)) == len(names)


def test_an_output_has_a_name_that_no_node_has() -> None:
    recorder = Recorder("torch", {}, ())
    value = recorder.input("x", (2, 4), "float32")
    attributes = {"axis": 1, "k": 2}
    recorder.add("Identity", "parts:1", (value,), [(2, 4)], {}, {}, None)
    outputs = recorder.add("TopK", "parts", (value,), [(2, 2), (2, 2)], {}, attributes, None)
    assert outputs == ("parts", "parts:1@2")
