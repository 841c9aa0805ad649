"""Looks at batches that may hold what nobody has looked at: those of a transform, and of a data set that is gone through anew in every round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from xbackend_fl.aggregation import is_finite
from xbackend_fl.data import Examples, input_names, not_finite, out_of_range
from xbackend_fl.errors import ConfigError
from xbackend_fl.metrics import Objectives


@final
@dataclass(frozen=True)
class BatchChecks:
    """What a model and its loss take, batch by batch.

    Attributes:
        vocabulary: For every input that a table is looked up with, the rows of the table.
    """

    vocabulary: Mapping[int, int]

    def __call__(self, where: str, part: Examples, objective: Objectives, hint: str) -> None:
        """Look at a batch, in ONNX layout and as the data hold it.

        Args:
            where: Whose it is, for messages; what is wrong, and in which row of the batch, follows behind a blank.
            part: The batch.
            objective: How the losses read its targets.
            hint: What can be done about it.

        Raises:
            ConfigError: An input is NaN, infinite or in no table; or a target is none of the loss.
        """
        names = input_names(len(part.inputs))
        for place, (name, array) in enumerate(zip(names, part.inputs, strict=True)):
            if array.dtype.kind == "f" and array.size and not is_finite(array):
                raise ConfigError(f"{where} {name}: {not_finite(array)}", hint=hint)
            rows = self.vocabulary.get(place)
            if rows is not None and (wrong := out_of_range(array, 0, rows - 1)):
                raise ConfigError(
                    f"{where} {name}: the value {wrong}, but the model looks it up in a table of {rows} rows (0 to {rows - 1})",
                    hint=hint,
                )
        if (fault := objective.fault(part.targets)) is not None:
            raise ConfigError(f"{where} targets: row {fault.row}: {fault.reason}", hint=hint)
