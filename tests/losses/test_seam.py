"""A new loss is one file: nothing else names the ones that there are."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from tests.beside import naming
from xbackend_fl.course.registered import section
from xbackend_fl.losses import LOSSES, Loss, NumpyOperations, kinds
from xbackend_fl.registry import discover

pytestmark = pytest.mark.quick

LOGCOSH = """
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt

from xbackend_fl.losses import BuiltIn, Operations


@dataclass(frozen=True)
class LogCosh(BuiltIn):
    metric = "mae"
    name: Literal["log_cosh"] = "log_cosh"
    scale: Annotated[float, Gt(0)] = 1.0

    def each(self, outputs: Any, targets: Any, ops: Operations) -> Any:
        size = ops.abs(outputs - targets) / self.scale
        return size + ops.log1p(ops.exp(-2.0 * size)) - 0.6931471805599453


LOSS = LogCosh
"""


def test_a_loss_is_one_short_file(root: Path) -> None:
    folder = root / "xbackend_fl/losses/kinds"
    files = {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}
    assert files.keys() == LOSSES.keys()
    for name, path in files.items():
        assert len(path.read_text().splitlines()) <= 100
        assert next(f for f in fields(LOSSES[name]) if f.name == "name").default == name
        loss: Loss = LOSSES[name](name=name)
        assert hash(loss) == hash(LOSSES[name](name=name))
    assert naming(root, '"' + '"|"'.join(files) + '"', outside="losses/kinds/") == []


def test_a_file_that_is_there_is_a_loss_of_courses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log_cosh.py").write_text(LOGCOSH)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    registry = discover(kinds, "LOSS")
    assert registry.keys() == LOSSES.keys() | {"log_cosh"}
    key = TypeAdapter(section(registry, "training.loss"))
    found = key.validate_python({"name": "log_cosh", "scale": 2.0})
    assert found == registry["log_cosh"](scale=2.0)
    assert key.validate_python("log_cosh").scale == 1.0
    each = found.each(np.array([0.0, 3.0]), np.array([0.0, 1.0]), NumpyOperations())
    np.testing.assert_allclose(each, np.log(np.cosh([0.0, 1.0])), rtol=1e-12, atol=1e-15)
    for wrong, words in (
        ({"name": "log_cosh", "scale": 0.0}, "greater than 0"),
        ({"name": "log_cosh", "width": 1}, "width"),
        ("log_cos", "there are binary_cross_entropy"),
    ):
        with pytest.raises(ValidationError, match=words):
            key.validate_python(wrong)
