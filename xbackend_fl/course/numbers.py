"""Numbers of a course that models compute with: what is a number in a file is one in float32, too."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

_TINY = float(np.finfo(np.float32).tiny)


def there(value: float) -> float:
    """A number as models compute with it; 0 if some frameworks flush it to 0."""
    with np.errstate(over="ignore", under="ignore"):
        found = float(np.float32(value))
    return 0.0 if abs(found) < _TINY else found


def single(value: float, *, below: float = math.inf) -> float:
    """A number that is finite where models compute, below a bound there too, and 0 there only if it is 0.

    Numbers below the smallest normal one are 0 to some frameworks, which flush them, and not to others.
    """
    found = there(value)
    if math.isinf(found) or found == 0 != value or found >= below:
        raise PydanticCustomError("single", _SINGLE, {"value": f"{value!r}", "there": f"{found:g}"})
    return value


_SINGLE = "input should be a number for float32, in which models compute; there {value} is {there}"
# Behind the limits of a field, which JSON Schema then has in its own words.
HELD = AfterValidator(single)
_LONGEST_S = 31_536_000
"""A year: whoever waits longer does not wait for a training."""
Seconds = Annotated[float, Field(gt=0, le=_LONGEST_S)]
