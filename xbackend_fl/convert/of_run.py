"""A round of a run as the source of a conversion: its weights, its schema, and how the run writes its ONNX file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xbackend_fl.canonical import Schema
from xbackend_fl.course import load_course
from xbackend_fl.errors import FileError, SchemaError
from xbackend_fl.mapping.proof.publish import read_schema
from xbackend_fl.rounds import RunFolder
from xbackend_fl.rounds.export import writing_of
from xbackend_fl.text import line
from xbackend_fl.weights import Archive, Entry, Weights, digest, open_weights
from xbackend_fl.weights.onnx_writing import Writing

_SHOWN = 20


@dataclass(frozen=True)
class RunRound:
    """One round of a run.

    Attributes:
        archive: Its weights in canonical form.
        schema: Whose they are.
        writing: How the run writes its ONNX file.
    """

    archive: Archive
    schema: Schema
    writing: Writing

    def writing_with(self, sequence_axes: Sequence[tuple[int, int]], opset: int | None) -> Writing:
        """How the run writes its ONNX file, if other axes or another opset are not asked for."""
        own = self.writing
        return Writing(sequence_axes or own.sequence_axes, opset or own.opset, own.metadata)


def round_of(path: Path, number: int | None = None) -> RunRound:
    """A round of a run: of its checkpoint, or of its ONNX file.

    Args:
        path: The folder of the run.
        number: The round; the last one that is kept if left out.

    Raises:
        FileError: That round is not kept, or its file is damaged or of another run.
        SchemaError: It is of another schema than the run.
    """
    folder = RunFolder.load(path)
    rounds = sorted({*folder.kept, *folder.exported})
    chosen = rounds[-1] if number is None and rounds else number
    if chosen is None or chosen not in rounds:
        listed = ", ".join(map(str, rounds[-_SHOWN:])) or "none"
        raise FileError(
            line(
                f"{path} keeps no weights of {'a round' if chosen is None else f'round {chosen}'}; it has {listed}"
            ),
            hint="keep_checkpoints in the course says how many of the latest stay, onnx_every writes the ONNX files of others",
        )
    schema = read_schema(folder.schema)
    file, held = _weights(folder, schema, chosen)
    if held.fingerprint != schema.fingerprint:
        raise SchemaError(
            f"{file} is of schema {held.fingerprint[:12]}, the run of {schema.fingerprint[:12]}"
        )
    kinds = json.dumps({name: str(kind) for name, kind in held.kinds.items()})
    about = {"fingerprint": held.fingerprint, "kinds": kinds, "digest": digest(held)}
    entries = {name: Entry.from_array(array) for name, array in held.items()}
    writing = writing_of(load_course(folder.course), folder, chosen)
    return RunRound(Archive(file, "safetensors", entries, about), schema, writing)


def _weights(folder: RunFolder, schema: Schema, number: int) -> tuple[Path, Weights]:
    """The file that has a round, and what it has."""
    if number in folder.kept:
        return folder.checkpoints, folder.checkpoint(number).weights
    file = folder.onnx_of(number)
    archive = open_weights(file, "onnx")
    held = Weights.from_schema(schema, archive)
    return file, Weights(held, archive.metadata.get("fingerprint", ""), held.kinds)
