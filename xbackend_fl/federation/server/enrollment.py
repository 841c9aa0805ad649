"""Before the first round: silos come, one gives the reference's evidence, and each proves its model with it.

Without a quorum whoever is refused ends the course, before anybody has trained for nothing. With one, the course is led without them, and they are told of.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from xbackend_fl.course import Course
from xbackend_fl.deadline import Deadline
from xbackend_fl.errors import ConfigError, MismatchError, RunFailed, UpdateRefused, shortened
from xbackend_fl.events import ModelBound, Noted, Observer
from xbackend_fl.federation.protocol.message import Message, public, quoted
from xbackend_fl.federation.server.dispatcher import Dispatcher
from xbackend_fl.federation.server.reference import Reference, reference_of
from xbackend_fl.mapping.proof.verify import TOLERANCE
from xbackend_fl.rounds import check_losses

_WAIT_S = 0.2
_MAX_NOTES = 1000


def wait_for_silos(course: Course, dispatcher: Dispatcher, observer: Observer) -> Mapping[str, Message]:
    """Wait for the silos, and hear who they are.

    Raises:
        RunFailed: Fewer than the quorum came in time; or one was refused, and all are needed.
    """
    rules, names = course.deployment, {participant.name for participant in course.participants}
    deadline = Deadline.within(rules.join_timeout_s)
    refused: dict[str, str] = {}
    while True:
        announcements = {name: hello for name, hello in dispatcher.announcements().items() if name in names}
        good = {name: hello for name, hello in announcements.items() if hello.kind == "hello"}
        for name in announcements.keys() - good.keys():
            reason = announcements[name].reason
            if rules.quorum is None:
                raise RunFailed(f"silo {name!r}: {reason}")
            if refused.get(name) != reason:
                refused[name] = reason
                observer(_left_out(name, reason))
        if good.keys() == names or deadline.passed:
            break
        time.sleep(_WAIT_S)
    if len(good) < rules.min_silos(len(names)):
        raise RunFailed(
            f"{len(good)} of {len(names)} silos came within {rules.join_timeout_s:g} s; "
            f"not there: {', '.join(sorted(names - good.keys()))}{_listed(refused)}",
            hint="start them with xbfl join, raise deployment.join_timeout_s, or set deployment.quorum",
        )
    return good


def fetch_references(
    course: Course, dispatcher: Dispatcher, announcements: Mapping[str, Message], observer: Observer
) -> Iterator[Reference]:
    """The evidence and weights of the silos of the reference's backend, of each that can give them in turn.

    Whoever takes one and finds that others cannot be measured by it takes the next.

    Args:
        course: The course.
        dispatcher: Reaches the silos.
        announcements: Of those that are there.
        observer: Told of evidence that cannot be used.

    Raises:
        RunFailed: No silo can; without a quorum only the first is asked.
    """
    rules, refused, given = course.deployment, dict[str, str](), 0
    for name in sorted(
        name for name, hello in announcements.items() if hello.fields["backend"] == course.reference
    ):
        asked = {name: Message("evidence")}
        answers = dispatcher.ask(asked, rules.round_timeout_s, enough=lambda: rules.quorum is not None)
        try:
            found = reference_of(name, dict(answers).get(name))
            check_losses(found.schema, course.heads)
        except (UpdateRefused, ConfigError) as error:
            # It may quote names of the schema that came.
            reason = public(error.message)
            if rules.quorum is None and isinstance(error, ConfigError):
                raise ConfigError(reason, hint=error.hint) from error
            refused[name] = reason
            observer(Noted(backend="server", note=f"silo {name!r} is not taken for the reference: {reason}"))
        else:
            given += 1
            yield found
        if rules.quorum is None:
            break
    if not given:
        raise RunFailed(f"no silo gave the model of the reference {course.reference!r}{_listed(refused)}")


def verify_models(
    course: Course,
    dispatcher: Dispatcher,
    reference: Reference,
    announcements: Mapping[str, Message],
    observer: Observer,
) -> None:
    """Let every silo bind its model, and prove it.

    Args:
        course: The course.
        dispatcher: Reaches the silos.
        reference: What they must be equal to.
        announcements: Of those that are there.
        observer: Told of every model.

    Raises:
        MismatchError: A silo's model is not proven to be the reference's; with a quorum, so many that too few are left.
        RunFailed: Too few answered in time.
    """
    began, rules, quorum = (
        time.perf_counter(),
        course.deployment,
        course.deployment.min_silos(len(announcements)),
    )
    proven, refused = set[str](), dict[str, str]()
    requests = dict.fromkeys(sorted(announcements), reference.binding)
    for name, answer in dispatcher.ask(requests, rules.round_timeout_s, enough=lambda: len(proven) >= quorum):
        try:
            event = _bound(name, answer, announcements[name], reference, time.perf_counter() - began)
        except UpdateRefused as error:
            if rules.quorum is None:
                raise MismatchError(f"silo {name!r}: {error.message}", hint=error.hint) from error
            refused[name] = error.message
            observer(_left_out(name, error.message))
        else:
            proven.add(name)
            observer(event)
    if len(proven) < quorum:
        kind = MismatchError if refused else RunFailed
        late = dict.fromkeys(sorted(announcements.keys() - proven - refused.keys()), "no answer")
        raise kind(f"{len(proven)} models are proven, and {quorum} are needed{_listed(refused | late)}")


def _bound(name: str, answer: Message, hello: Message, reference: Reference, seconds: float) -> ModelBound:
    fields = answer.fields
    if answer.kind != "bound":
        raise UpdateRefused(answer.reason, hint=answer.hint)
    if (found := fields.get("fingerprint")) != reference.schema.fingerprint:
        raise UpdateRefused(
            f"it bound its model to {quoted(found)}, expected {reference.schema.fingerprint!r}"
        )
    try:
        error, notes = _proof(fields["largest_error"], fields["notes"])
        return ModelBound(
            backend=f"{name} ({hello.fields['backend']})",
            version=public(_text(hello.fields["version"])),
            fingerprint=fields["fingerprint"],
            reference=name == reference.name,
            largest_error=error,
            notes=notes,
            seconds=seconds,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UpdateRefused(
            f"what it says of its model cannot be read: {public(shortened(error))}"
        ) from error


def _proof(error: object, notes: object) -> tuple[float, tuple[str, ...]]:
    """What a silo says of its proof, if a proof can say that."""
    if type(error) not in {int, float} or not isinstance(notes, list):
        raise TypeError("largest_error is no number, or notes are no list")
    assert isinstance(error, int | float)
    if not 0 <= error <= TOLERANCE:
        raise UpdateRefused(f"no proof passes with a largest error of {error:g}; expected 0 to {TOLERANCE:g}")
    if len(notes) > _MAX_NOTES:
        raise UpdateRefused(f"it says {len(notes)} things of its model, expected {_MAX_NOTES} at most")
    return float(error), tuple(public(_text(note)) for note in notes)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} stands where text should")
    return value


def _left_out(name: str, reason: str) -> Noted:
    return Noted(backend="server", note=f"silo {name!r} is left out: {reason}")


def _listed(reasons: Mapping[str, str]) -> str:
    return "".join(f"\n  silo {name!r}: {reason}" for name, reason in reasons.items())
