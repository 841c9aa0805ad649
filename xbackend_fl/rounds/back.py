"""One round back: its weights turned out to be such that nobody can train from them, and one of its updates did that."""

from __future__ import annotations

from typing import final

from xbackend_fl.errors import RunFailed
from xbackend_fl.events import Noted, Observer
from xbackend_fl.rounds.checkpoint import CourseState
from xbackend_fl.rounds.engine import Engine
from xbackend_fl.rounds.folder import RunFolder
from xbackend_fl.rounds.ready import put_back


@final
class Ruined(RunFailed):
    """Most participants cannot train from a round's weights, or evaluate them, and an update of that round stood out."""

    code = "ruined"


def go_back(
    engine: Engine, folder: RunFolder, state: CourseState, ruined: Ruined, observer: Observer
) -> CourseState:
    """Undo a round, and take out of it the update that stood out most; the engine merges the others again.

    The checkpoint goes first: a process that is killed before the update is out finds the round not done, merges it as it was, and comes here again.

    Args:
        engine: Keeps the updates of the round, and says who stood out.
        folder: Has the checkpoint before.
        state: After the round.
        ruined: What was found.
        observer: Told of it.

    Returns:
        The state before the round: weights, server optimizer, history.

    Raises:
        RunFailed: The checkpoint before is gone, or cannot be read.
    """
    before = folder.readable(state.round - 1)
    if engine.take_out is None or before is None or before.weights.fingerprint != state.weights.fingerprint:
        raise RunFailed(
            f"{ruined.message}; and no checkpoint has the weights before that round",
            hint=f"put round {state.round - 1} back into {folder.checkpoints}",
        ) from ruined
    folder.drop_checkpoint(state.round)
    for note in put_back(folder, before):
        observer(Noted(backend="server", note=note))
    for note in engine.take_out(state.round, before.weights.digest, ruined.message):
        observer(Noted(backend="server", note=note))
    return before
