"""What a course minimises and measures, of one output or of several, and what its figures are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from pydantic_core import InitErrorDetails

from xbackend_fl.course.diagnostics import look_alike, mistake
from xbackend_fl.course.evaluation import EvaluationSection
from xbackend_fl.course.excerpt import printed
from xbackend_fl.course.outputs import OutputSection, mistakes
from xbackend_fl.course.settings import Path as Keys
from xbackend_fl.course.training import Training
from xbackend_fl.locate import resolve
from xbackend_fl.losses import Loss, NativeLoss, OwnLoss
from xbackend_fl.metrics import LOSS, OF, Choice, Head, Heads, Reported


@final
@dataclass(frozen=True)
class Figures:
    """The losses and the figures of a course.

    Attributes:
        training: The section ``training``.
        evaluation: The section ``evaluation``.
        base: Folder that relative files start from.
    """

    training: Training
    evaluation: EvaluationSection
    base: Path

    @property
    def heads(self) -> Heads:
        """The outputs that losses read; code of the user's own is named by its absolute file."""
        training, evaluation = self.training, self.evaluation
        if training.outputs is None:
            metrics = evaluation.measured(training.loss, self.base)
            loss, ignored = located(training.loss, self.base), training.ignore_index
            return Heads((Head("", loss, metrics, class_axis=training.class_axis, ignore_index=ignored),))
        each = tuple(
            Head(
                name,
                located(one.loss, self.base),
                one.evaluation.measured(one.loss, self.base),
                name if one.output is None else one.output,
                one.weight,
                one.class_axis,
                one.ignore_index,
            )
            for name, one in training.outputs.items()
        )
        return Heads(each, tuple(Reported(name, where) for name, where in evaluation.reported.items()))

    @property
    def labels(self) -> list[str]:
        """Names of the figures, but for those of single classes: the loss first."""
        if self.training.outputs is None:
            return self.evaluation.labels(self.training.loss)
        of_heads = (
            f"{name}{OF}{label}"
            for name, one in self.training.outputs.items()
            for label in one.evaluation.labels(one.loss)
        )
        return [LOSS.label, *of_heads, *self.evaluation.reported]

    def gives(self, figure: str) -> bool:
        """Whether a figure of this name is measured."""
        if self.training.outputs is None:
            return self.evaluation.gives(figure, self.training.loss)
        one, name = self._apart(figure)
        if one is None:
            return figure == LOSS.label or figure in self.evaluation.reported
        return one.evaluation.gives(name, one.loss)

    @property
    def chosen_by(self) -> Choice:
        """What chooses the best weights.

        Raises:
            ConfigError: It is a metric of the user's own, and there is none.
        """
        best = self.evaluation.best
        if self.training.outputs is None:
            return self.evaluation.chosen_by(self.training.loss, self.base)
        found = self.choice(best.metric or LOSS.label)
        return replace(found, direction=best.direction or found.direction, over=best.over)

    def choice(self, figure: str) -> Choice:
        """A figure that is measured, with its metric's direction.

        Raises:
            ConfigError: It is a metric of the user's own, and there is none.
        """
        if self.training.outputs is None:
            return self.evaluation.choice(self.training.loss, self.base, figure)
        one, name = self._apart(figure)
        if one is None:
            return Choice(figure, self.evaluation.reported.get(figure, "min"))
        return replace(one.evaluation.choice(one.loss, self.base, name), name=figure)

    @property
    def files(self) -> list[tuple[Keys, str]]:
        """Metrics of the user's own: keys that lead to each, and what is written there."""
        found: list[tuple[Keys, str]] = [
            (("evaluation", *path), text) for path, text in self.evaluation.files
        ]
        for name, one in (self.training.outputs or {}).items():
            found += [(("training", "outputs", name, *path), text) for path, text in one.evaluation.files]
        return found

    def mistakes(self) -> Iterator[InitErrorDetails]:
        """What no key can say for itself, at its place from the course."""
        training, evaluation = self.training, self.evaluation
        if training.outputs is None:
            yield from _within_evaluation(evaluation.mistakes(training.loss))
            return
        said = {key: getattr(training, key) for key in training.model_fields_set}
        yield from mistakes(training.outputs, said, evaluation)
        best, place = evaluation.best.metric, ("evaluation", "best", "metric")
        if best is not None and not self.gives(best):
            text = f"evaluation.best is {printed(best)}, and what is measured is {', '.join(self.labels)}"
            yield mistake(text, place, best, hint=look_alike(best, self.labels))
        yield from _within_evaluation(evaluation.unfit({LOSS.label}))

    def _apart(self, figure: str) -> tuple[OutputSection | None, str]:
        """The output that a figure is of, and what it is called there."""
        name, of, label = figure.partition(OF)
        outputs = self.training.outputs or {}
        return (outputs[name], label) if of and name in outputs else (None, figure)


def _within_evaluation(found: Iterable[InitErrorDetails]) -> Iterator[InitErrorDetails]:
    for one in found:
        yield {**one, "loc": ("evaluation", *one.get("loc", ()))}


def located(loss: Loss, base: Path) -> Loss:
    """A loss whose code, if it is the user's own, is named by its absolute file."""
    if isinstance(loss, OwnLoss | NativeLoss):
        return loss.within(lambda text: resolve(text, base))
    return loss
