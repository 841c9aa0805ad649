"""``xbfl bench`` takes what it uses, and refuses the rest."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from xbackend_fl.cli.main import app

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["aggregation", "--over", "federate.cohort=1,2"], "--over"),
        (["aggregation", "--set", "federate.cohort=1"], "--set"),
        (["aggregation", "--backend", "torch"], "--backend"),
        (["scaling", "--values", "10"], "--values"),
        (["course.yaml", "--device", "cpu"], "--device"),
    ],
)
def test_an_option_that_would_change_nothing(arguments: list[str], option: str) -> None:
    found = CliRunner().invoke(app, ["bench", *arguments], env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert found.exit_code == 2
    assert f"{option} does nothing" in found.output
    assert "--repeats" in found.output


def test_the_same_options_where_they_are_used() -> None:
    found = CliRunner().invoke(app, ["bench", "aggregation", "--values", "1000", "--updates", "2", "--json"])
    assert found.exit_code == 0, found.output
