"""All parameters of one model, by canonical name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.canonical import Kind, Schema
from xbackend_fl.errors import SchemaError


@final
class Weights(Mapping[str, NDArray[Any]]):
    """An immutable mapping of parameter name to array.

    Args:
        arrays: Arrays by name, in the order of the schema. They are not copied; treat them as given away.
        fingerprint: Fingerprint of the schema they belong to.
        kinds: Kind of each parameter; all trainable if left out.
    """

    __slots__ = ("_arrays", "fingerprint", "kinds")

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        fingerprint: str,
        kinds: Mapping[str, Kind] | None = None,
    ) -> None:
        self._arrays = dict(arrays)
        self.fingerprint = fingerprint
        self.kinds: dict[str, Kind] = dict(kinds or dict.fromkeys(arrays, Kind.TRAINABLE))

    @staticmethod
    def from_schema(schema: Schema, arrays: Mapping[str, NDArray[Any]]) -> Weights:
        """Weights of ``schema``, checked against it.

        Raises:
            SchemaError: A parameter is missing, is too many, or has another shape or dtype.
        """
        missing = [name for name in schema.by_name if name not in arrays]
        unknown = [name for name in arrays if name not in schema.by_name]
        if missing or unknown:
            raise SchemaError(f"weights do not fit the schema: missing {missing[:5]}, unknown {unknown[:5]}")
        for name, parameter in schema.by_name.items():
            received = (arrays[name].shape, str(arrays[name].dtype))
            if received != (parameter.shape, parameter.dtype):
                raise SchemaError(
                    f"parameter {name!r}: expected {parameter.dtype} {list(parameter.shape)}, "
                    f"received {received[1]} {list(received[0])}"
                )
        kinds = {name: parameter.kind for name, parameter in schema.by_name.items()}
        return Weights({name: arrays[name] for name in schema.by_name}, schema.fingerprint, kinds)

    def like(self, arrays: Mapping[str, NDArray[Any]]) -> Weights:
        """Other arrays under the same fingerprint and kinds."""
        return Weights({name: arrays[name] for name in self._arrays}, self.fingerprint, self.kinds)

    def with_kinds(self, kinds: Mapping[str, Kind]) -> Weights:
        """The same arrays, which are something else in a course: some stay with their participant, some are not trained."""
        return Weights(self._arrays, self.fingerprint, kinds)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        size = sum(array.size for array in self._arrays.values())
        return f"<Weights of {self.fingerprint[:12]}: {len(self)} parameters, {size:,} values>"

    def __reduce__(self) -> tuple[object, ...]:
        return Weights, (self._arrays, self.fingerprint, self.kinds)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names, shapes, dtypes and bytes: equal weights have equal digests."""
        return digest(self._arrays)

    def relative_distance(self, other: Mapping[str, NDArray[Any]]) -> float:
        """``||self - other|| / ||other||`` over all parameters, in float64."""
        squared = reference = 0.0
        for name, array in self._arrays.items():
            expected = other[name].astype(np.float64)
            squared += float(np.sum((array.astype(np.float64) - expected) ** 2))
            reference += float(np.sum(expected**2))
        return float(np.sqrt(squared / max(reference, np.finfo(np.float64).tiny)))


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 (hex) over names, shapes, dtypes and bytes of ``arrays``, independent of their order."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()
