"""Asks a claim in every order of outputs and of inputs that names and sizes leave open, and takes what the numbers say."""

from __future__ import annotations

from dataclasses import replace

from xbackend_fl.adapter import Reordering
from xbackend_fl.deadline import Deadline
from xbackend_fl.errors import MismatchError, XbflError
from xbackend_fl.mapping.align.inputs import (
    Turned,
    input_orders,
    inputs_in_other_order,
    matching_first,
    order_notes,
)
from xbackend_fl.mapping.align.pairings import SECONDS
from xbackend_fl.mapping.bound import BoundModel
from xbackend_fl.mapping.claim import Claim
from xbackend_fl.mapping.judge import proven
from xbackend_fl.mapping.match.ports import (
    fitting_orders,
    output_notes,
    output_orders,
    outputs_exchanged,
    outputs_untold,
)
from xbackend_fl.mapping.probe.native import SizeRefused, as_it_was


def in_some_order(claim: Claim) -> BoundModel:
    """The candidate proven with its outputs in the order that the numbers tell, where only one side gives them names.

    Raises:
        MismatchError: No order passes, or more than one.
    """
    trainer, schema = claim.trainer, claim.schema
    own, deadline = trainer.description.schema, Deadline.within(SECONDS)
    orders = output_orders(schema, own)
    if not isinstance(trainer, Reordering):
        return _inputs_in_some_order(claim)
    if orders == [tuple(range(len(own.outputs)))]:
        try:
            return _inputs_in_some_order(claim)
        except MismatchError:
            exchanged = _exchanged(claim, trainer)
            if exchanged is None:
                raise
            raise exchanged from None
    refused: list[MismatchError] = []
    found: list[tuple[tuple[int, ...], BoundModel]] = []
    for order in orders:
        if (found or refused) and deadline.passed:
            break
        trainer.return_in(order)
        try:
            found.append((order, _inputs_in_some_order(replace(claim, diagnosed=not refused))))
        except MismatchError as error:
            refused.append(error)
    if len(found) == 1 and len(found) + len(refused) == len(orders):
        ((order, only),) = found
        trainer.return_in(order)
        return replace(only, notes=(*only.notes, *output_notes(schema, own, order)))
    trainer.return_in(range(len(own.outputs)))
    raise outputs_untold(schema, own, refused if not found else ())


def _exchanged(claim: Claim, trainer: Reordering) -> MismatchError | None:
    """The refusal of a candidate that is the reference if its outputs trade places; ``None`` if it is not."""
    own, deadline = claim.trainer.description.schema, Deadline.within(SECONDS)
    for order in fitting_orders(claim.schema, own):
        if order == tuple(range(len(order))):
            continue
        if deadline.passed:
            break
        trainer.return_in(order)
        try:
            _inputs_in_some_order(replace(claim, diagnosed=False))
        except XbflError:
            continue
        else:
            return outputs_exchanged(claim.schema, own, order)
        finally:
            trainer.return_in(range(len(order)))
    return None


def _inputs_in_some_order(claim: Claim) -> BoundModel:
    """The candidate proven with its inputs in the likeliest order that the numbers do not contradict."""
    trainer, schema = claim.trainer, claim.schema
    own, deadline = trainer.description, Deadline.within(SECONDS)
    orders = matching_first(schema, own, input_orders(schema, own.schema))
    refused: MismatchError | None = None
    unfit: SizeRefused | None = None
    for order in orders:
        if (refused or unfit) and deadline.passed:
            break
        turned = trainer if order == tuple(range(len(order))) else Turned(trainer, own.with_inputs(order))
        try:
            with as_it_was(trainer):
                # What differs is asked once: the first refusal is the one that is shown.
                found = proven(replace(claim, trainer=turned, diagnosed=claim.diagnosed and refused is None))
        except MismatchError as error:
            refused = refused or error
            continue
        except SizeRefused as error:
            # Ids of one table are too large for another: inputs may lie in another order.
            unfit = unfit or error
            continue
        notes = (*found.notes, *order_notes(schema, own, order))
        return replace(found, model=replace(found.model, trainer=trainer), notes=notes)
    if refused is None:
        assert unfit is not None
        raise unfit
    raise inputs_in_other_order(schema, own.schema, orders) or refused
