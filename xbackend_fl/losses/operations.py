"""What the arithmetic of a loss is written with: the same few operations of every framework, and of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np


class Operations(Protocol):
    """A framework's operations on its own tensors, beside ``+ - * / **``, ``<`` and ``>``, which every tensor has itself.

    A loss reads outputs and targets of one batch. Where there are classes, their axis may be any: operations over classes know which one it is, and
    what they give has the shape of the targets.
    """

    @property
    def backend(self) -> str:
        """Whose operations these are."""
        ...

    def exp(self, value: Any, /) -> Any:
        """``e ** value``."""
        ...

    def log(self, value: Any, /) -> Any:
        """Natural logarithm."""
        ...

    def log1p(self, value: Any, /) -> Any:
        """``log(1 + value)``, exact for a small value."""
        ...

    def abs(self, value: Any, /) -> Any:
        """Magnitude; its derivative at 0 is 0."""
        ...

    def sqrt(self, value: Any, /) -> Any:
        """Square root."""
        ...

    def maximum(self, one: Any, other: Any, /) -> Any:
        """The larger of two, element by element; either may be a number."""
        ...

    def where(self, condition: Any, one: Any, other: Any, /) -> Any:
        """``one`` where the condition holds, else ``other``; either may be a number."""
        ...

    def squared_error(self, outputs: Any, targets: Any, /) -> Any:
        """``(outputs - targets) ** 2``."""
        ...

    def sigmoid_cross_entropy(self, logits: Any, shares: Any, /) -> Any:
        """``-shares * log(sigmoid(logits)) - (1 - shares) * log(1 - sigmoid(logits))``, exact for large logits."""
        ...

    def softmax_cross_entropy(self, scores: Any, classes: Any, /) -> Any:
        """``-log(softmax(scores))`` at each position's class, exact for large scores; in the shape of ``classes``."""
        ...

    def log_softmax(self, scores: Any, /) -> Any:
        """``log(softmax(scores))`` over the classes, in the shape of ``scores``."""
        ...

    def gather(self, scores: Any, classes: Any, /) -> Any:
        """The number of each position's class, in the shape of ``classes``."""
        ...

    def sum(self, scores: Any, /) -> Any:
        """The sum over the classes, in the shape of the targets."""
        ...

    def length(self, scores: Any, /) -> int:
        """How many classes there are."""
        ...

    def pick(self, numbers: Sequence[float], classes: Any, like: Any, /) -> Any:
        """For every position the number of its class, in the shape of ``classes`` and the dtype of ``like``."""
        ...

    def row(self, numbers: Sequence[float], scores: Any, /) -> Any:
        """One number for each class, to be multiplied with ``scores``; without classes, one for each label of ``[N, labels]``."""
        ...

    def mean(self, values: Any, /) -> Any:
        """The mean of all values: a scalar."""
        ...

    def total(self, values: Any, /) -> Any:
        """The sum of all values: a scalar."""
        ...

    def size(self, values: Any, /) -> Any:
        """How many values there are, as ``int`` or an integer scalar of the framework."""
        ...

    def count(self, condition: Any, /) -> Any:
        """In how many places a condition holds, as an integer scalar of the framework."""
        ...

    def as_float(self, count: Any, like: Any, /) -> Any:
        """A count as a float of the kind that ``like`` has."""
        ...


@final
@dataclass(frozen=True)
class NumpyOperations:
    """The operations of NumPy, in the dtype of what they are given.

    Attributes:
        axis: Where the classes are.
    """

    axis: int = -1
    backend: str = "numpy"

    exp = staticmethod(np.exp)
    log = staticmethod(np.log)
    log1p = staticmethod(np.log1p)
    abs = staticmethod(np.abs)
    sqrt = staticmethod(np.sqrt)
    maximum = staticmethod(np.maximum)
    where = staticmethod(np.where)
    mean = staticmethod(np.mean)
    total = staticmethod(np.sum)
    size = staticmethod(np.size)
    count = staticmethod(np.count_nonzero)

    def squared_error(self, outputs: Any, targets: Any, /) -> Any:
        """See :class:`Operations`, as for all below."""
        return np.square(outputs - targets)

    def sigmoid_cross_entropy(self, logits: Any, shares: Any, /) -> Any:
        """Of two classes."""
        return np.maximum(logits, 0) - logits * shares + np.log1p(np.exp(-np.abs(logits)))

    def softmax_cross_entropy(self, scores: Any, classes: Any, /) -> Any:
        """Of many classes."""
        rows = np.ascontiguousarray(np.moveaxis(scores, self.axis, -1))
        shifted = rows - rows.max(-1, keepdims=True)
        return np.log(np.exp(shifted).sum(-1)) - np.take_along_axis(shifted, classes[..., None], -1)[..., 0]

    def log_softmax(self, scores: Any, /) -> Any:
        """Logarithms of shares."""
        shifted = scores - scores.max(self.axis, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(self.axis, keepdims=True))

    def gather(self, scores: Any, classes: Any, /) -> Any:
        """Numbers of classes."""
        return np.take_along_axis(scores, np.expand_dims(classes, self.axis), self.axis).squeeze(self.axis)

    def sum(self, scores: Any, /) -> Any:
        """Over classes."""
        return scores.sum(self.axis)

    def length(self, scores: Any, /) -> int:
        """Of the axis of the classes."""
        return int(scores.shape[self.axis])

    def pick(self, numbers: Sequence[float], classes: Any, like: Any, /) -> Any:
        """By class."""
        return np.array(numbers, like.dtype)[classes]

    def row(self, numbers: Sequence[float], scores: Any, /) -> Any:
        """Along classes."""
        return np.array(numbers, scores.dtype).reshape(row_shape(len(numbers), scores.ndim, self.axis))

    def as_float(self, count: Any, like: Any, /) -> Any:
        """In the dtype of ``like``."""
        return like.dtype.type(count)


def row_shape(length: int, rank: int, axis: int) -> list[int]:
    """The shape of ``length`` numbers along one axis of a tensor of so many axes."""
    return [length if axis % rank == place else 1 for place in range(rank)]
