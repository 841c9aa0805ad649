"""The outputs that a course's losses read, and how they read them: one, or several with a loss each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from xbackend_fl.adapter import HeadConfig, TrainConfig
from xbackend_fl.canonical import Binding, Schema
from xbackend_fl.canonical.schema import parameters_behind
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import Loss, NativeLoss, joined, parts_of
from xbackend_fl.metrics.metric import Metric
from xbackend_fl.metrics.metrics import Metrics
from xbackend_fl.metrics.objective import Array, Fault, Objective, objective_of

_BLOCK = 4096
"""Targets that are looked at together."""
_KEYS = re.compile(r"\btraining\.(?=loss|class_axis|ignore_index)")


@dataclass(frozen=True)
class Head:
    """An output of the model with its loss.

    Attributes:
        name: What figures and targets of it are called; empty where a course has one loss.
        loss: Its loss.
        metrics: What is measured of it: the loss first.
        output: The name under which the model returns it, or its place.
        weight: What its loss counts in the sum of all.
        class_axis: The declared axis of the classes, the batch counted.
        ignore_index: Targets of this value do not count; ``None`` if all do.
    """

    name: str
    loss: Loss
    metrics: tuple[Metric, ...]
    output: str | int = 0
    weight: float = 1.0
    class_axis: int | None = None
    ignore_index: int | None = None

    @property
    def key(self) -> str:
        """Where a course says what it is: ``training``, or ``training.outputs.NAME``."""
        return f"training.outputs.{self.name}" if self.name else "training"

    def index_in(self, schema: Schema) -> int:
        """Its place among the outputs of the reference's schema: the first where a course has one loss.

        Raises:
            ConfigError: The model has no such output.
        """
        if not self.name:
            return 0
        keys = [port.key for port in schema.outputs]
        places = {key: place for place, key in enumerate(keys) if key}
        if str(self.output) in places:
            return places[str(self.output)]
        number = int(self.output) if str(self.output).isdecimal() else -1
        if not places and 0 <= number < len(keys):
            return number
        there = (
            ", ".join(places)
            if places
            else f"the numbers 0 to {len(keys) - 1}: the model gives them no names"
        )
        placed = ": it returns them by name, and names have no order" if places and number >= 0 else ""
        raise ConfigError(
            f"{self.key}: the reference's model has no output {str(self.output)!r}{placed}; there are {there}",
            hint=f"training.outputs: {{{self.name}: {{output: {self._closest(places)}, loss: …}}}}",
        )

    def _closest(self, names: Iterable[str]) -> str:
        """The name of an output that was probably meant; 0 where outputs have none."""
        known = [*names]
        close = difflib.get_close_matches(str(self.output), known, n=1)
        return next(iter(close or difflib.get_close_matches(self.name, known, n=1, cutoff=0)), "0")

    def of_it(self, error: ConfigError) -> ConfigError:
        """An error of a loss that knows of no heads, with the keys of this one in the course."""
        hint = None if error.hint is None else _KEYS.sub(f"{self.key}.", error.hint)
        return ConfigError(_KEYS.sub(f"{self.key}.", error.message), hint=hint)


@dataclass(frozen=True)
class Heads:
    """All outputs that a course's losses read.

    Attributes:
        each: One without a name, or several with names.
        reported: Figures that participants report by code of their own, where there are several; else they are among the one's metrics.
    """

    each: tuple[Head, ...]
    reported: tuple[Metric, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of several heads; empty where a course has one loss."""
        return tuple(head.name for head in self.each if head.name)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is measured of all outputs together: all of one, or what participants report."""
        return self.reported if self.names else self.each[0].metrics[1:]


@dataclass(frozen=True)
class Read:
    """A head as a model has it.

    Attributes:
        head: The head.
        index: The place of its output.
        objective: How its loss reads that and its targets.
    """

    head: Head
    index: int
    objective: Objective

    @property
    def config(self) -> HeadConfig:
        """What training is told of it, in ONNX layout."""
        axis, ignored = self.objective.class_axis or 1, self.objective.ignore_index
        return HeadConfig(self.head.name, self.index, self.objective.loss, self.head.weight, axis, ignored)

    @property
    def ignored(self) -> str:
        """The target that does not count, and where a course says it; empty if all do."""
        value = self.objective.ignore_index
        return "" if value is None else f"{value}, which is {self.head.key}.ignore_index"

    def told(self, config: TrainConfig) -> TrainConfig:
        """Local training with its loss alone."""
        return config.of_head(self.config)


@final
@dataclass(frozen=True)
class Objectives:
    """How the losses of a course read a model's outputs and targets, in ONNX layout.

    Targets of several heads are a structured array with a field for each.

    Attributes:
        each: One for every head, in order.
        reported: As of :class:`Heads`.
    """

    each: tuple[Read, ...]
    reported: tuple[Metric, ...] = ()

    @property
    def ignored(self) -> str:
        """The targets that do not count, and where a course says them; empty if all of one head do."""
        found = [read.ignored for read in self.each]
        return ", and ".join(found) if all(found) else ""

    def counts(self, targets: Array) -> bool:
        """Whether a target counts, of any head."""
        found = (read.objective.counted(own) for read, own in self.apart(targets))
        return any(counted is None or bool(counted.any()) for counted in found)

    def apart(self, targets: Array) -> Iterator[tuple[Read, Array]]:
        """Every head with its own targets."""
        for read in self.each:
            yield read, targets[read.head.name] if read.head.name else targets

    def prepared(self, targets: Array) -> Array:
        """Targets as a model trains on them; see :meth:`Objective.prepared`."""
        parts = {read.head.name: read.objective.prepared(own) for read, own in self.apart(targets)}
        return joined(parts)

    def fault(self, targets: Array) -> Fault | None:
        """The first target that a loss does not accept, of the first head that has one; see :meth:`Objective.fault`."""
        for read, own in self.apart(targets):
            if (found := read.objective.fault(own)) is not None:
                return found._replace(
                    reason=f"{read.head.name}: {found.reason}" if read.head.name else found.reason
                )
        return None

    def told(self, config: TrainConfig) -> TrainConfig:
        """Local training with these losses, in ONNX layout."""
        configs = tuple(read.config for read in self.each)
        return replace(config, heads=configs) if configs[0].name else config.of_head(configs[0])

    def measured(self, outputs: Sequence[Array], targets: Array) -> Metrics:
        """The figures of one batch.

        Args:
            outputs: All of the model's, ``[N, ...]`` in ONNX layout.
            targets: ``[N, ...]``, accepted by the losses.

        Raises:
            RunFailed: As of :meth:`Metrics.measured`.
        """
        found = {
            read.head.name: replace(
                Metrics.measured(read.objective, outputs[read.index], own, read.head.metrics[1:]),
                weight=read.head.weight,
            )
            for read, own in self.apart(targets)
        }
        return found[""] if "" in found else Metrics.of_heads(found, self.reported)

    def of_zeros(self, targets: Array) -> Metrics:
        """The figures of targets if every output is zero."""
        count = 1 + max(read.index for read in self.each)
        outputs = [np.zeros(0, np.float32)] * count
        for read in self.each:
            outputs[read.index] = np.broadcast_to(np.float32(0), (len(targets), *read.objective.output))
        return self.measured(outputs, targets)

    def layout_notes(self, binding: Binding) -> tuple[str, ...]:
        """What is said of targets that would also fit the model's own order of axes; see :meth:`Objective.layout_note`."""
        found = [(r.head.name, r.objective.layout_note(binding.outputs[r.index].perm)) for r in self.each]
        return tuple(f"{name}: {note}" if name else note for name, note in found if note)

    def unfit(self) -> str:
        """Why a metric is not defined for an output; empty if all are."""
        for read in self.each:
            for metric in read.head.metrics:
                if reason := metric.unfit(read.objective):
                    return f"{read.head.name}: {reason}" if read.head.name else reason
        return ""


def objectives_of(
    schema: Schema, heads: Heads, targets: Array, *, is_reference: bool = True, varies: bool = False
) -> Objectives:
    """How the losses of a course read a model's outputs and these targets.

    Args:
        schema: The schema, described at an example of the size of the data.
        heads: The outputs that losses read.
        targets: All targets of a data set; a structured array for several heads.
        is_reference: Whether the schema is the reference's. If it is that of a model which nobody has compared with it yet, outputs that neither names
            nor places tell apart are those that the losses can read.
        varies: Whether a batch may have other targets than these, so that some may not count though all of these do.

    Raises:
        ConfigError: The model has no such output, or a head has no targets, or its loss does not read these; or no target counts of any head.
    """
    parts = parts_of(targets)
    wanted = ", ".join(heads.names)
    if not heads.names and "" not in parts:
        raise ConfigError(
            f"the targets have the parts {', '.join(parts)}, and training.loss reads one",
            hint=f"training: {{outputs: {{{next(iter(parts))}: {{loss: …}}, …}}}}, or hand over one array of targets",
        )
    if heads.names and "" in parts:
        raise ConfigError(
            f"the targets are one array, and training.outputs reads {wanted}",
            hint=f"hand over inputs, {{{', '.join(f'{name!r}: …' for name in heads.names)}}}",
        )
    if missing := [name for name in heads.names if name not in parts]:
        raise ConfigError(
            f"no targets for {', '.join(missing)}, which training.outputs names; there are {', '.join(parts)}"
        )
    if is_reference or not heads.names:
        places = [head.index_in(schema) for head in heads.each]
    else:
        places = _likely_places(schema, heads, parts)
    pairs = zip(heads.each, places, strict=True)
    found = Objectives(
        tuple(_read(schema, place, head, parts[head.name], varies=varies) for head, place in pairs),
        heads.reported,
    )
    if not found.counts(targets) and len(targets):
        raise ConfigError(
            f"no target counts: all are {found.ignored}",
            hint=" or ".join(f"{head.key}.ignore_index: null" for head in heads.each)
            + " if this is a target like any other",
        )
    return found


def _likely_places(schema: Schema, heads: Heads, parts: Mapping[str, Array]) -> list[int]:
    """Places of the heads in a model that nobody has compared with the reference yet: by name, else as the course counts the reference's, else by what fits.

    The proof tells; until then a model is tried with targets that its outputs can have.
    """
    keys = [port.key for port in schema.outputs]
    named = {
        head.name: keys.index(key)
        for head in heads.each
        for key in (head.name, str(head.output))
        if key in keys
    }
    free = [place for place in range(len(keys)) if place not in named.values()]
    fits: dict[str, dict[int, int]] = {}
    for head in heads.each:
        if head.name not in named:
            counted = [place for place in free if str(place) == str(head.output)]
            order = dict.fromkeys([*counted, *free])
            fits[head.name] = {place: _fit(schema, place, head, parts[head.name]) for place in order}
    for least in (2, 1, 0):
        wanted = {
            name: [place for place, fit in fit_of.items() if fit >= least] for name, fit_of in fits.items()
        }
        if (found := _apart(wanted)) is not None:
            return [*map((named | found).__getitem__, heads.names)]
    return [head.index_in(schema) for head in heads.each]


def _fit(schema: Schema, place: int, head: Head, targets: Array) -> int:
    """2 if the loss accepts all targets beside an output, 1 if it accepts their shape alone (fewer classes than the data have are of another), else 0."""
    try:
        objective = _read(schema, place, head, targets).objective
    except ConfigError:
        return 0
    starts = range(0, len(targets), _BLOCK)
    return 2 if all(objective.fault(targets[i : i + _BLOCK]) is None for i in starts) else 1


def _apart(wanted: Mapping[str, Sequence[int]]) -> dict[str, int] | None:
    """One place for every name, of those that it wants and the earlier the better; ``None`` if they do not suffice."""
    owners: dict[int, str] = {}

    def found(name: str, seen: set[int]) -> bool:
        for place in wanted[name]:
            if place not in seen:
                seen.add(place)
                if place not in owners or found(owners[place], seen):
                    owners[place] = name
                    return True
        return False

    if not all(found(name, set()) for name in wanted):
        return None
    return {name: place for place, name in owners.items()}


def parameters_of(schema: Schema, places: Iterable[int]) -> frozenset[str]:
    """Names of the parameters that some outputs are computed with."""
    return frozenset().union(*(parameters_behind(schema, schema.outputs[place].name) for place in places))


def _read(schema: Schema, place: int, head: Head, targets: Array, *, varies: bool = False) -> Read:
    try:
        found = objective_of(
            schema,
            head.loss,
            targets,
            place=place,
            class_axis=head.class_axis,
            ignore_index=head.ignore_index,
        )
    except ConfigError as error:
        wrong = head.of_it(error)
        named = f"{head.name}: {wrong.message}" if head.name else wrong.message
        raise ConfigError(named, hint=wrong.hint) from error
    # A native loss may give one number for each example, of which nothing can be left out.
    return Read(
        head, place, found if varies and not isinstance(head.loss, NativeLoss) else found.counting(targets)
    )
