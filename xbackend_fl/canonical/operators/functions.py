"""Functions of single elements that mathematics names.

The pass ``roots`` makes one root of a root and a reciprocal.
"""

from __future__ import annotations

from xbackend_fl.canonical.row import Operator, Property

_PLAIN = Property.PASSES_FEATURES
_LAYER = _PLAIN | Property.KEEPS_AXES

OPERATORS = (
    Operator("Exp", properties=_LAYER | Property.NOT_NEGATIVE | Property.SATURATES | Property.UNBOUNDED),
    Operator("Log", properties=_LAYER | Property.DIVIDES | Property.UNBOUNDED),
    Operator("Sqrt", properties=_LAYER | Property.DIVIDES),
    Operator("Neg", properties=_LAYER | Property.EXACT),
    Operator("Abs", properties=_LAYER | Property.NOT_NEGATIVE),
    Operator("Reciprocal", properties=_PLAIN | Property.DIVIDES | Property.UNBOUNDED),
    *(Operator(name, properties=_PLAIN | Property.ROUNDS) for name in ("Floor", "Ceil", "Round")),
    *(Operator(name, properties=_PLAIN | Property.UNBOUNDED) for name in ("Tan", "Atanh")),
    *(
        Operator(name, properties=_PLAIN)
        for name in (
            *("Erf", "Sign", "Sin", "Cos", "Asin", "Acos", "Atan"),
            *("Sinh", "Cosh", "Asinh", "Acosh"),
        )
    ),
)
