"""What a run folder must have before rounds go on: made again where it can be, refused in one line where not."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from xbackend_fl.errors import ConfigError, FileError, SchemaError
from xbackend_fl.rounds.checkpoint import CourseState
from xbackend_fl.rounds.folder import RunFolder
from xbackend_fl.text import line
from xbackend_fl.weights import Weights, load_weights
from xbackend_fl.weights.around import replace_weights
from xbackend_fl.writing import explain_unwritable, write_text

_SHOWN = 5


def make_ready(folder: RunFolder, state: CourseState | None) -> Iterator[str]:
    """Look at every place that a run will write to or read from, and make again what is gone.

    Args:
        folder: The run's.
        state: Where it goes on; ``None`` if it begins.

    Yields:
        What was done that people may want to know, one line each.

    Raises:
        FileError: Something else is in a place, or cannot be written; or the best weights are gone, and nothing has them.
    """
    for path in folder.files:
        with explain_unwritable(path):
            taken = path.is_dir()
        if taken:
            raise FileError(
                f"{path} is a folder, where the run writes a file", hint="move it away; nothing was run"
            )
    for path in (folder.path, folder.checkpoints, folder.bindings):
        with explain_unwritable(path):
            if path.is_file():
                raise FileError(
                    f"{path} is a file, where the run keeps a folder", hint="move it away; nothing was run"
                )
            path.mkdir(exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
    if state is None:
        if folder.best.exists() or folder.last.exists():
            yield f"no checkpoint is left in {folder.checkpoints}: the run begins again with round 1"
        return
    # A process that was killed may have written a round for which there is no checkpoint yet.
    for number in folder.exported:
        if number > state.round:
            folder.onnx_of(number).unlink()
    if _held(folder.last, state.weights.fingerprint) != state.weights.digest:
        yield from _written(folder.last, state.weights)
    if state.best is not None and (why := _unfit(folder.best, state)):
        weights = _best(folder, state)
        if weights is None:
            raise FileError(
                f"{folder.best} {why}, and no checkpoint has the weights of round {state.best.round}, the best so far",
                hint=f"put it back; or delete {folder.checkpoints}, and the run begins again",
            )
        yield from _written(folder.best, weights)
        yield f"{folder.best} {why}: made again from the checkpoint of round {state.best.round}"


def put_back(folder: RunFolder, state: CourseState) -> Iterator[str]:
    """Let the last and the best weights be those of an earlier state; its best round has a checkpoint, or the best stay as they are.

    Yields:
        What people may want to know, one line each.
    """
    yield from _written(folder.last, state.weights)
    if state.best is None:
        folder.best.unlink(missing_ok=True)
    elif (weights := _best(folder, state)) is not None:
        yield from _written(folder.best, weights)


def _written(path: Path, weights: Weights) -> Iterator[str]:
    _, gone = replace_weights(path, weights)
    if gone:
        yield gone


def require_same_data(folder: RunFolder, found: Mapping[str, str], *, begun: bool) -> str | None:
    """Compare the data with those that the run was begun with, and keep what there is.

    Args:
        folder: The run's.
        found: Digest of every array, by its name; empty where nobody here has data.
        begun: Whether rounds of the run have been kept, which were trained on the data then.

    Returns:
        What people may want to know, in one line.

    Raises:
        ConfigError: Arrays are not what they were.
        FileError: What was kept cannot be read.
    """
    if not found:
        return None
    kept = _kept(folder.data) if begun else {}
    # Participants that were added bring data of their own.
    changed = [name for name, digest in kept.items() if found.get(name) != digest]
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise ConfigError(
            f"the data are not those that the run was begun with: {line(', '.join(changed[:_SHOWN]))}{more}",
            hint=f"put them back, or start a new run; to go on with the data as they are now, delete {folder.data}",
        )
    if kept != found:
        with explain_unwritable(folder.path):
            write_text(folder.data, json.dumps(dict(found), indent=1))
    if begun and not kept:
        return f"{folder.data} was missing: the run goes on with the data as they are now"
    return None


def _kept(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(found, dict) or not all(isinstance(digest, str) for digest in found.values()):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> FileError:
    return FileError(
        f"{path} is damaged, so that nobody knows which data the run was begun with",
        hint="delete it to go on with the data as they are now",
    )


def _best(folder: RunFolder, state: CourseState) -> Weights | None:
    """The weights of the best round, if a checkpoint has them."""
    assert state.best is not None
    if state.best.round == state.round:
        return state.weights
    found = folder.readable(state.best.round)
    return found.weights if found and found.weights.fingerprint == state.weights.fingerprint else None


def _held(path: Path, fingerprint: str) -> str | None:
    """The digest of a file's weights; ``None`` if it has none of this schema."""
    try:
        return load_weights(path, fingerprint).digest
    except (FileError, SchemaError):
        return None


def _unfit(path: Path, state: CourseState) -> str:
    """What is wrong with the file of the best weights, as the end of a sentence; empty if nothing is."""
    assert state.best is not None
    if not path.exists():
        return "is missing"
    found = _held(path, state.weights.fingerprint)
    if found is None:
        return "cannot be read"
    # The last round's stand there if the run was killed after their evaluation; it is evaluated again.
    fit = (state.best_digest, state.weights.digest)
    return (
        ""
        if found in fit or not state.best_digest
        else f"has other weights than those of round {state.best.round}"
    )
