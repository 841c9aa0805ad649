"""Binds two forms of one function: their parameters are paired by what they do, and only numbers speak of the rest.

Structure has the first word. Where two graphs differ in nothing but an attribute, they are two functions, however little the
attribute moves; where they differ in form, this room says what may be one function all the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest

from xbackend_fl.adapter.contract import Trainer
from xbackend_fl.canonical import OPERATORS, Binding, Description, Effect, Node, Property, Schema, has
from xbackend_fl.canonical.node import AttributeValue
from xbackend_fl.mapping.align.align import Alignment, alignments
from xbackend_fl.mapping.align.constants import unlike_constants
from xbackend_fl.mapping.align.pairings import Proposal
from xbackend_fl.mapping.match.difference import Difference
from xbackend_fl.mapping.match.match import Matching
from xbackend_fl.mapping.match.skeleton import rounded, skeleton_of
from xbackend_fl.mapping.match.training import followed, pair_dropouts, training_report
from xbackend_fl.mapping.probe.frozen import FrozenValues
from xbackend_fl.mapping.probe.probe import Evidence
from xbackend_fl.text import line

_SUBTLE = frozenset(
    {"epsilon", "approximate", "alpha", "beta", "gamma", "min", "max", "constant", "activation"}
)
"""Attributes that may move outputs by less than the proof sees: where only they differ, two models are two functions."""

_FLOORS = 1e-8, 9e-4
"""A number between these that is added, or bounds from below, keeps a divisor or a root from zero: an epsilon in whatever form. What
is smaller only stands for zero, and its square in another form does the same. What is larger is seen where it is added."""

_WIDEST_BOUND = 0.1
"""A lone bound from below up to this is an epsilon too: no draw comes near it where what it bounds is a norm."""


_LONGEST = 200
"""Characters of a difference that is only mentioned."""


class UnlikeError(Exception):
    """Two graphs are not two forms of one function; ``found`` says in what layers differ that both have, if they do."""

    def __init__(self, found: tuple[Difference, ...] = ()) -> None:
        super().__init__("; ".join(map(str, found)))
        self.found = found


def one_function(
    schema: Schema,
    trainer: Trainer,
    evidence: Sequence[Evidence] | None,
    found: Sequence[Difference],
    frozen: FrozenValues | None = None,
) -> Iterator[Proposal]:
    """Bindings of a candidate whose graph has another form, the likeliest first, as proposals for the proof.

    Args:
        schema: The reference's schema.
        trainer: The candidate; its weights are changed.
        evidence: What the reference did.
        found: How the graphs differ.
        frozen: What both models keep as it is, if they do.

    Raises:
        UnlikeError: Parameters do not fit each other, or layers that both models have differ in an attribute.
    """
    if any(item.attribute in _SUBTLE for item in found):
        raise UnlikeError
    description, several = trainer.description, alignments(schema, trainer, evidence, frozen)
    first = next(several, None)
    if first is None:
        raise UnlikeError
    apart = (
        *_unlike_floors(schema, description.schema),
        *unlike_constants(schema, description.schema, frozen),
    )
    for alignment in chain([first], several):
        if unequal := (*_unequal(schema, description.schema, alignment.nodes), *apart):
            raise UnlikeError(unequal)
        dropouts, ordered = _dropouts(schema, description, alignment)
        nodes = {**alignment.nodes, **dropouts}
        binding = _with_nodes(alignment.binding, description, nodes)
        binding, notes = followed(binding, training_report(schema, description, binding, nodes))
        kept = frozen.notes() if frozen else ()
        yield binding, (*notes, *_said(found, alignment), *ordered, *kept)


def _with_nodes(binding: Binding, description: Description, nodes: Mapping[str, str]) -> Binding:
    native = description.binding.nodes
    return replace(binding, nodes={nodes[name]: native[name] for name in native if name in nodes})


def _unequal(schema: Schema, own: Schema, nodes: Mapping[str, str]) -> Iterator[Difference]:
    """Attributes of the function that differ in layers that both models have, whatever lies between them."""
    ours = {node.name: node for node in schema.nodes}
    for node in own.nodes:
        if node.name in nodes:
            yield from _between(ours[nodes[node.name]], node)
    sides = _glue(schema), _glue(own)
    for operator in sides[0].keys() & sides[1].keys():
        left_nodes, right_nodes = sides[0][operator], sides[1][operator]
        if len(left_nodes) != len(right_nodes):
            continue
        one_rest, two_rest = list(left_nodes), list(right_nodes)
        for node in left_nodes:
            twin = next((other for other in two_rest if _attributes(other) == _attributes(node)), None)
            if twin is not None:
                one_rest.remove(node)
                two_rest.remove(twin)
        for left, right in zip(one_rest, two_rest, strict=True):
            yield from _between(left, right)


def floors_of(schema: Schema) -> dict[float, Node]:
    """Every epsilon of a graph, and the first node that has it."""
    found: dict[float, Node] = {}
    for value, node in _every_floor(schema):
        found.setdefault(value, node)
    return found


def _every_floor(schema: Schema, largest: float = _FLOORS[1]) -> Iterator[tuple[float, Node]]:
    """Every epsilon in every place, in the order of the graph; one that is added is no larger than ``largest``."""
    for node in schema.nodes:
        for name, value in node.attributes.items():
            added = name == "epsilon" or (name, node.operator) in {("constant", "Add"), ("min", "Clip")}
            alone = name == "min" and "max" not in node.attributes
            if (
                added
                and isinstance(value, float)
                and _FLOORS[0] < value <= (_WIDEST_BOUND if alone else largest)
            ):
                yield float(f"{value:.3g}"), node


def _unlike_floors(schema: Schema, own: Schema) -> Iterator[Difference]:
    """Epsilons that one graph has and the other has not: in so many places where both have as many, else at all.

    What stands on one side alone may stand within an opaque node of the other; draws of small weights speak of it then.
    """
    ours, theirs = list(_every_floor(schema)), list(_every_floor(own))
    places = len(ours) == len(theirs)
    left, right = (
        [(f"{value:g}", node) for value, node in _without(one, two, places=places)]
        for one, two in ((ours, theirs), (theirs, ours))
    )
    if (schema.opaque or own.opaque) and not (left and right):
        return
    for ours_alone, theirs_alone in zip_longest(left, right):
        one = ours_alone or _larger(schema, own, theirs_alone[1])
        two = theirs_alone or _larger(own, schema, ours_alone[1])
        node = (ours_alone or theirs_alone)[1]
        (expected, first), (received, second) = (
            (found[0], found[1].name) if found else ("absent", "") for found in (one, two)
        )
        yield Difference(first, second, node.operator, "epsilon", expected, received)


def _larger(schema: Schema, other: Schema, twin: Node) -> tuple[str, Node] | None:
    """What a graph alone adds in a node like the other's ``twin``: too large to be an epsilon by itself, and one beside its twin."""
    known = {value for value, _ in _every_floor(other, _WIDEST_BOUND)}
    for value, node in _every_floor(schema, _WIDEST_BOUND):
        if node.operator == twin.operator and value > _FLOORS[1] and value not in known:
            return f"{value:g}", node
    return None


def _without(
    one: Sequence[tuple[float, Node]], two: Sequence[tuple[float, Node]], *, places: bool
) -> Iterator[tuple[float, Node]]:
    """What is in ``one`` and not in ``two``: every place by itself, or every number once."""
    left = Counter(value for value, _ in two)
    known = {value for value, _ in two}
    for value, node in one:
        if places and left[value]:
            left[value] -= 1
        elif places or value not in known:
            known.add(value)
            yield value, node


def _between(left: Node, right: Node) -> Iterator[Difference]:
    """Attributes in which two nodes differ."""
    one, two = _attributes(left), _attributes(right)
    for name in sorted(one.keys() | two.keys()):
        if one.get(name) != two.get(name) and not _plainly_apart(left.operator, one.get(name), two.get(name)):
            yield _difference(left, right, name, one.get(name), two.get(name))


def _plainly_apart(operator: str, one: AttributeValue | None, two: AttributeValue | None) -> bool:
    """Whether two whole numbers that something is compared with differ: probes hold values on either side of both."""
    numbers = [value for value in (one, two) if isinstance(value, int | float) and float(value).is_integer()]
    return has(operator, Property.COMPARES) and len(numbers) == 2


def _difference(
    left: Node, right: Node, name: str, one: AttributeValue | None, two: AttributeValue | None
) -> Difference:
    expected, received = ("absent" if value is None else str(value) for value in (one, two))
    return Difference(left.name, right.name, left.operator, name, expected, received, two)


def _attributes(node: Node) -> dict[str, AttributeValue]:
    row = OPERATORS[node.operator]
    return {
        name: rounded(value)
        for name, value in node.attributes.items()
        if row.effect(name) is Effect.FUNCTION and name in _SUBTLE
    }


def _glue(schema: Schema) -> dict[str, list[Node]]:
    """Nodes without parameters whose attributes belong to them however the expression is written."""
    found: dict[str, list[Node]] = defaultdict(list)
    for node in schema.nodes:
        row = OPERATORS[node.operator]
        if not row.slots and not row.has(Property.SHAPE_ONLY | Property.REWRITTEN):
            found[node.operator].append(node)
    return found


def _dropouts(
    schema: Schema, description: Description, alignment: Alignment
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The candidate's dropout nodes to the reference's: between paired layers, and else in order if their rates are the same."""
    reference, candidate = skeleton_of(schema), skeleton_of(description.schema)
    places = {core.node.name: index for index, core in enumerate(reference.core_nodes)}
    pairs = {
        places[alignment.nodes[core.node.name]]: index
        for index, core in enumerate(candidate.core_nodes)
        if alignment.nodes.get(core.node.name) in places
    }
    found = pair_dropouts(reference, candidate, Matching(pairs), (schema, description.schema))
    ours = [node for node in schema.nodes if node.operator == "Dropout" and node.name not in found.values()]
    theirs = [n for n in description.schema.nodes if n.operator == "Dropout" and n.name not in found]
    rates = [[node.attributes.get("ratio") for node in side] for side in (ours, theirs)]
    if not ours or rates[0] != rates[1]:
        return found, ()
    found |= {right.name: left.name for left, right in zip(ours, theirs, strict=True)}
    return found, (f"{len(ours)} dropout layers between nodes of other forms are paired in order",)


def _said(found: Sequence[Difference], alignment: Alignment) -> Iterator[str]:
    if found:
        yield (
            "the two graphs have other forms, and parameters are paired by their gradients: between the layers only numbers speak. "
            f"First difference: {line(str(found[0]), _LONGEST)}"
        )
    if alignment.reordered:
        yield f"the features that these read lie in another order, which gradients tell: {_names(alignment.reordered)}"
    if alignment.tied:
        yield (
            "equal weights by shape do not tell these from others; this pairing passes the proof, and others were not asked: "
            f"{_names(alignment.tied)}"
        )


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
