"""Everything a course needs to go on after an interruption, in one file that is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from blake3 import blake3
from numpy.typing import NDArray

from xbackend_fl.algorithms import State as ServerState
from xbackend_fl.canonical import Kind
from xbackend_fl.errors import FileError, shortened
from xbackend_fl.events import RoundFinished
from xbackend_fl.weights import Archive, Weights, read_tensors, write_tensors

_WEIGHTS, _SERVER = "weights/", "server/"


@dataclass(frozen=True)
class Pending:
    """A round whose weights were not evaluated yet.

    Attributes:
        num_examples: Examples of its updates.
        seconds: What it took.
    """

    num_examples: int
    seconds: float


@dataclass(frozen=True)
class CourseState:
    """A course between two rounds.

    Attributes:
        round: Last finished round.
        weights: Global weights.
        server: State of the server's algorithm.
        history: One entry per evaluated round.
        pending: The last round, if it is not in the history yet.
        states: Digest of what each participant keeps, by its name; who keeps nothing is not in it.
        run: Name of the run; empty where nobody gave one.
        best_digest: Digest of the weights of the best round; empty if there is none, or an earlier version wrote the state.
        digest: Digest of the weights, if somebody has it; no file holds it.
    """

    round: int
    weights: Weights
    server: ServerState
    history: tuple[RoundFinished, ...] = ()
    pending: Pending | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    run: str = ""
    best_digest: str = ""
    digest: str = ""

    @property
    def best(self) -> RoundFinished | None:
        """The round with the best validation result: the last one that was better than all before it."""
        return best_of(self.history)

    def evaluated(self, entry: RoundFinished) -> CourseState:
        """The state with the last round's entry in the history."""
        best = (self.digest or self.weights.digest) if entry.best else self.best_digest
        return replace(self, history=(*self.history, entry), pending=None, best_digest=best)


def best_of(history: Sequence[RoundFinished]) -> RoundFinished | None:
    """The entry of a history that was better than all before it, and has none after it that was."""
    return next((entry for entry in reversed(history) if entry.best), None)


def save_state(path: Path, state: CourseState) -> None:
    """Write a checkpoint."""
    arrays: dict[str, NDArray[Any]] = {_WEIGHTS + name: array for name, array in state.weights.items()}
    arrays |= {_SERVER + name: array for name, array in state.server.items()}
    metadata = {
        "round": str(state.round),
        "fingerprint": state.weights.fingerprint,
        "kinds": json.dumps({name: str(kind) for name, kind in state.weights.kinds.items()}),
        "history": json.dumps([entry.model_dump(mode="json") for entry in state.history]),
        "pending": json.dumps(state.pending and asdict(state.pending)),
        "states": json.dumps(dict(state.states)),
        "run": state.run,
        "best_digest": state.best_digest,
    }
    write_tensors(path, arrays, metadata | {"metadata_digest": _digest(metadata)})


def is_checkpoint(archive: Archive) -> bool:
    """Whether a file is a checkpoint, and not of weights alone."""
    return "metadata_digest" in archive.metadata


def weights_in(archive: Archive) -> Mapping[str, NDArray[Any]]:
    """The weights by canonical name in a file of them, or in a checkpoint, which holds them beside the state of its server."""
    if not is_checkpoint(archive):
        return archive
    return {name.removeprefix(_WEIGHTS): archive[name] for name in archive if name.startswith(_WEIGHTS)}


def load_state(path: Path) -> CourseState:
    """Read a checkpoint.

    Raises:
        FileError: It is missing, corrupt, or not a checkpoint.
    """
    arrays, metadata = read_tensors(path)
    try:
        # That of the arrays, which the file has too, does not cover these.
        stated = metadata.pop("metadata_digest")
        if stated != _digest({key: value for key, value in metadata.items() if key != "digest"}):
            raise FileError(f"{path} is corrupt: what it says of the round does not match its digest")
        kinds = {name: Kind(kind) for name, kind in json.loads(metadata["kinds"]).items()}
        weights = Weights({name: arrays[_WEIGHTS + name] for name in kinds}, metadata["fingerprint"], kinds)
        history = tuple(RoundFinished.model_validate(entry) for entry in json.loads(metadata["history"]))
        number = int(metadata["round"])
        pending = json.loads(metadata.get("pending", "null"))
        unevaluated = pending and Pending(**pending)
        states = {str(name): str(of) for name, of in json.loads(metadata.get("states", "{}")).items()}
        run, best_digest = metadata.get("run", ""), metadata.get("best_digest", "")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"{path} is not a checkpoint: {shortened(error)}") from error
    server = {name.removeprefix(_SERVER): a for name, a in arrays.items() if name.startswith(_SERVER)}
    return CourseState(number, weights, server, history, unevaluated, states, run, best_digest)


def _digest(metadata: dict[str, str]) -> str:
    return blake3(json.dumps(metadata, sort_keys=True).encode()).hexdigest()
