"""The section ``evaluation``: what is measured, on whose examples, and which figure chooses the best weights."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import InitErrorDetails

from xbackend_fl.course.diagnostics import look_alike, mistake
from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.registered import chosen
from xbackend_fl.course.section import Section
from xbackend_fl.course.settings import Path as Keys
from xbackend_fl.locate import resolve
from xbackend_fl.losses import Loss
from xbackend_fl.metrics import (
    LOSS,
    METRICS,
    Choice,
    Direction,
    Metric,
    Over,
    Own,
    Reported,
    fitting,
    usual_metrics,
)

_OWN = "FILE_OR_MODULE:CALLABLE"
_LOSS: Keys = ("training", "loss")
_Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=60)]


def _entry(key: str, value: Any) -> Any:
    """A file stays a text."""
    if isinstance(value, str) and ":" in value:
        return value
    return chosen(value, METRICS, key, f", and {_OWN}")


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return _OWN
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if name in METRICS else None


if TYPE_CHECKING:
    Entry: TypeAlias = Metric | str
    OutputEntry: TypeAlias = Metric | str
else:
    _kinds = [Annotated[str, Tag(_OWN), Field(pattern=":")]]
    _kinds += [Annotated[kind, Tag(name)] for name, kind in METRICS.items()]
    Entry, OutputEntry = (
        Annotated[Union[tuple(_kinds)], Discriminator(_kind), BeforeValidator(partial(_entry, key))]  # noqa: UP007
        for key in ("evaluation.metrics", "training.outputs.OUTPUT.metrics")
    )


class BestSection(Section):
    """Which figure chooses the best weights."""

    metric: str | None = Field(
        None,
        description="name of a figure, or of a metric, which is then measured too; accuracy, rmse or loss, by the loss, if left out",
    )
    direction: Direction | None = Field(
        None, description="where it is better; as the metric says if left out"
    )
    over: Over = Field(
        "all",
        description="all: the figure of all examples together; mean or worst_tenth: of participants, with validation: participants",
    )


def _best(value: Any) -> Any:
    """A name alone is a mapping with it."""
    return {"metric": value} if isinstance(value, str) else value


class EvaluationSection(Section):
    """How weights are evaluated, after every round and at the end."""

    metrics: list[Entry] | None = Field(
        None,
        description="what is measured beside the loss: names, {name: top_k, k: 5}, and FILE_OR_MODULE:CALLABLE for those of your own; "
        "accuracy, or rmse, mae and r2, by the loss, if left out",
    )
    reported: dict[_Name, Direction] = Field(
        default_factory=dict,
        description="figures that participants report by code of their own (`evaluate`), and where each is better: {recall: max}",
    )
    best: Annotated[BestSection, BeforeValidator(_best)] = BestSection()
    validation: Literal["common", "participants"] = Field(
        "common",
        description="whose examples are validated on after every round: those of data.source (a silo with data of its own: its own), or every "
        "participant's own",
    )
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1,
        description="validation: participants: share of a participant's examples that it does not train on, if it brings none to validate on",
    )

    def mistakes(self, loss: Loss, beside: Keys = _LOSS) -> Iterator[InitErrorDetails]:
        """What no key can say for itself, at its place from the section.

        Args:
            loss: What is minimised.
            beside: Keys that lead to it.
        """
        fits, labels = fitting(loss), {"loss"}
        for place, entry in enumerate(self.metrics or ()):
            metric, keys = _metric(entry), ("metrics", place)
            if metric.name != "loss" and metric.label in labels:
                where = ".".join(map(str, ("evaluation",) if beside == _LOSS else beside[:-1]))
                yield mistake(f"{where}.metrics has {metric.label} twice", keys, entry)
            yield from _unfit(metric, entry, keys, loss, beside)
            labels.add(metric.label)
        yield from self.unfit(labels)
        labels |= {*self.reported}
        best = self.best.metric
        if best is None:
            return
        there = next((m for m in self._listed(loss) if m.gives(_label(best))), None)
        if ":" in best:
            if isinstance(there, Own) and there.text != best:
                yield mistake(f"two metrics are called {there.name}", ("best", "metric"), best)
            yield from _unfit(_metric(best), best, ("best", "metric"), loss, beside)
        elif there is None and best not in fits:
            known = [*fits, *sorted(labels - {*fits})]
            text = f"evaluation.best is {printed(best)}, but the loss is {loss.name}, which has {', '.join(known)}"
            yield mistake(text, ("best", "metric"), best, hint=look_alike(best, known))

    def unfit(self, labels: Container[str]) -> Iterator[InitErrorDetails]:
        """Figures of participants' own that are called as others, and a choice over participants who are not evaluated, at their places from the section.

        Args:
            labels: Names of the figures that are measured.
        """
        for name in self.reported:
            if name in labels or any(kind.has(name, built_in) for built_in, kind in METRICS.items()):
                text = f"evaluation.reported has {name}, which is the name of a metric of the course's"
                yield mistake(text, ("reported", name), name, hint=f"report it as own_{name}")
        if self.best.over != "all" and self.validation == "common" and self.best.metric not in self.reported:
            text = f"evaluation.best is over participants ({self.best.over}), who are not evaluated"
            yield mistake(text, ("best", "over"), self.best.over, hint="evaluation.validation: participants")

    def labels(self, loss: Loss) -> list[str]:
        """Names of the figures that are measured, but for those of single classes."""
        return [metric.label for metric in self._all(loss)]

    def gives(self, figure: str, loss: Loss) -> bool:
        """Whether a figure of this name is measured."""
        return any(metric.gives(figure) for metric in self._all(loss))

    def measured(self, loss: Loss, base: Path) -> tuple[Metric, ...]:
        """Everything that is measured: the loss first.

        Args:
            loss: The course's loss.
            base: Folder that relative files start from.
        """
        return tuple(
            Own.from_text(resolve(metric.text, base)) if isinstance(metric, Own) else metric
            for metric in self._all(loss)
        )

    def chosen_by(self, loss: Loss, base: Path) -> Choice:
        """What chooses the best weights.

        Raises:
            ConfigError: It is a metric of the user's own, and there is none.
        """
        usual = loss.metric if self.gives(loss.metric, loss) else "loss"
        found = self.choice(loss, base, usual if self.best.metric is None else _label(self.best.metric))
        return replace(found, direction=self.best.direction or found.direction, over=self.best.over)

    def choice(self, loss: Loss, base: Path, figure: str) -> Choice:
        """A figure that is measured, with its metric's direction.

        Raises:
            ConfigError: It is a metric of the user's own, and there is none.
        """
        metric = next(metric for metric in self.measured(loss, base) if metric.gives(figure))
        return Choice(figure, "max" if metric.higher_is_better else "min")

    def _listed(self, loss: Loss) -> tuple[Metric, ...]:
        entries = [*usual_metrics(loss)] if self.metrics is None else [_metric(e) for e in self.metrics]
        reported = (Reported(name, direction) for name, direction in self.reported.items())
        return (LOSS, *(metric for metric in entries if metric.name != "loss"), *reported)

    def _all(self, loss: Loss) -> tuple[Metric, ...]:
        """What is listed, and what is named under ``best`` alone."""
        found, best = self._listed(loss), self.best.metric
        if best is None or any(metric.gives(_label(best)) for metric in found):
            return found
        return (*found, _metric(best))

    @property
    def files(self) -> list[tuple[tuple[int | str, ...], str]]:
        """Metrics of the user's own: keys that lead to each, and what is written there."""
        found: list[tuple[tuple[int | str, ...], str]] = [
            (("metrics", place), entry)
            for place, entry in enumerate(self.metrics or ())
            if isinstance(entry, str)
        ]
        if self.best.metric is not None and ":" in self.best.metric:
            found.append((("best", "metric"), self.best.metric))
        return found


def _metric(entry: Metric | str) -> Metric:
    if not isinstance(entry, str):
        return entry
    return Own.from_text(entry) if ":" in entry else METRICS[entry](entry)


def _label(best: str) -> str:
    """The name of the figure of a metric, of which a file may be written."""
    return best.rpartition(":")[2]


def _unfit(
    metric: Metric, entry: Metric | str, keys: Keys, loss: Loss, beside: Keys
) -> Iterator[InitErrorDetails]:
    """What is wrong with one metric beside a loss."""
    if isinstance(metric, Own):
        if any(kind.has(metric.name, name) for name, kind in METRICS.items()):
            text = f"a metric called {metric.name} is there already"
            yield mistake(text, keys, entry, hint="give the callable another name")
    elif metric.name not in (fits := fitting(loss)):
        text = f"{metric.name} does not fit the loss {loss.name}, which has {', '.join(fits)}"
        yield mistake(text, keys, metric.name, beside=beside)
