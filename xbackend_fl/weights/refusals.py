"""What every error code means, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """A rule that a weight file can break.

    Attributes:
        meaning: What was found, and why it is not read.
        cure: What to do.
    """

    meaning: str
    cure: str


_AGAIN = "Get the file again, and compare its size and checksum with the sender's."
_RESAVE = "Ask the sender to save the weights again with the library's own writer."
_PLAIN = "Save plain weights: torch.save(model.state_dict(), path), or safetensors."

REFUSALS: dict[str, Refusal] = {
    "bad-boolean": Refusal(
        "A tensor of truth values holds bytes other than 0 and 1, which programs understand differently.",
        _RESAVE,
    ),
    "bad-header": Refusal(
        "A header is not what its format demands, so nothing it says can be relied on.", _RESAVE
    ),
    "bad-hdf5": Refusal("The HDF5 library cannot make sense of the file.", _AGAIN),
    "bad-name": Refusal(
        "A tensor has an empty, overlong or unprintable name, which could deceive whoever reads it on a screen.",
        "Rename the tensor where the file was made.",
    ),
    "bad-pickle": Refusal(
        "The pickle in a PyTorch file takes from an empty stack, breaks off, or describes a tensor as PyTorch never does.",
        _RESAVE,
    ),
    "bad-protobuf": Refusal("The file is not a well-formed protocol buffer.", _AGAIN),
    "bad-shape": Refusal(
        "A tensor has a negative size, too many axes, or more values than any model.", _RESAVE
    ),
    "bad-zip": Refusal(
        "The two tables of contents of the ZIP archive disagree, overlap or break off. "
        "Readers that trust one of them can be shown different content.",
        _RESAVE,
    ),
    "byte-order": Refusal(
        "The file was written on a big-endian machine.", "Save it again on a little-endian one."
    ),
    "checkpoint-compression": Refusal(
        "The index of the TensorFlow checkpoint is compressed, which TensorFlow's writer does not do.",
        _RESAVE,
    ),
    "checksum": Refusal("Some content does not match its checksum: at least one bit has changed.", _AGAIN),
    "dtype": Refusal(
        "A tensor holds text, objects, packed bits or another kind of value that is no plain number.",
        "Dequantise or convert it where the file was made.",
    ),
    "duplicate-name": Refusal(
        "A name stands twice. Readers differ in which of the two they take, so the file means two things.",
        _RESAVE,
    ),
    "empty": Refusal("The file has no content.", _AGAIN),
    "expansion": Refusal(
        "A small file declares tensors that would need very much more memory: real weights hardly compress.",
        _RESAVE,
    ),
    "external-data": Refusal(
        "The ONNX model keeps tensors in other files, which it names by path.",
        "If you trust the folder, pass --external-data: only files inside it are read. Or save the model in one file.",
    ),
    "foreign-format": Refusal(
        "The file or folder is of another program, or packed, or not what was to be downloaded.",
        "The message says what it is and what to do.",
    ),
    "frame-version": Refusal("The frame was written by a newer version.", "Update the receiving side."),
    "hdf5-external": Refusal(
        "A dataset takes its bytes from another file or dataset: reading it could leak a file of this machine.",
        "Copy the data into the dataset where the file was made.",
    ),
    "hdf5-filter": Refusal(
        "A dataset is packed by a filter other than gzip, shuffle and fletcher32; others are plugins, which are code.",
        "Write it with gzip or unpacked (h5repack -f NONE).",
    ),
    "hdf5-links": Refusal(
        "The file uses soft or external links, or groups that contain themselves. Keras writes none.",
        "Write it anew with plain groups.",
    ),
    "header-too-large": Refusal("A header is so large that parsing it would exhaust memory.", _RESAVE),
    "not-a-checkpoint": Refusal("The file is not the index of a TensorFlow checkpoint.", "Check --from."),
    "not-a-file": Refusal("The path is a folder, device, pipe or socket.", "Name a regular file."),
    "not-a-frame": Refusal("The file is not a canonical frame.", "Check --from."),
    "not-a-zip": Refusal("A file of this format is a ZIP archive, and this one is not.", "Check --from."),
    "not-keras": Refusal("The ZIP archive lacks what every Keras archive has.", "Check --from."),
    "not-pytorch": Refusal("The ZIP archive lacks the pickle that every PyTorch file has.", "Check --from."),
    "outside": Refusal(
        "The file names another one outside its own folder, or behind a link: it could make you disclose that file.",
        "Put the files into one folder, without links.",
    ),
    "overlap": Refusal(
        "Two tensors share bytes, or leave bytes between them that none accounts for.", _RESAVE
    ),
    "parser-stopped": Refusal(
        "The confined process that parses HDF5 crashed, or asked for more time or memory than a file of this size needs.",
        _AGAIN,
    ),
    "pickle-global": Refusal(
        "The pickle names a class or function. Loading it the usual way would run it.", _PLAIN
    ),
    "pickle-limit": Refusal("The pickle is larger or deeper than that of any state dict.", _PLAIN),
    "pickle-model": Refusal("The file holds a whole model, which is code, and not just its weights.", _PLAIN),
    "pickle-opcode": Refusal("The pickle uses an instruction that no state dict needs.", _PLAIN),
    "pytorch-legacy": Refusal(
        "The file is a bare pickle, or a tar as PyTorch wrote before version 0.1.10.",
        "Load and save it again with a current PyTorch, on a machine where you trust the file.",
    ),
    "shards": Refusal("The index of a model in several files does not fit the files.", _AGAIN),
    "size-mismatch": Refusal("A tensor's shape does not fit the bytes it has.", _AGAIN),
    "tensor-kind": Refusal(
        "A tensor is sparse, quantised, nested, or has no values (meta): it is not a plain array of numbers.",
        "Make it plain where the file was made: .to_dense(), .dequantize(), or load the model's values before saving it.",
    ),
    "too-many-tensors": Refusal("The file holds more tensors than any model.", _RESAVE),
    "torchscript": Refusal("The file holds a TorchScript or exported program, which is code.", _PLAIN),
    "trailing-data": Refusal(
        "The file goes on where it should end: something is hidden, or two files ran together.", _AGAIN
    ),
    "truncated": Refusal("The file is shorter than it says.", _AGAIN),
    "zip-encrypted": Refusal("The archive is encrypted.", "Decrypt it first."),
    "zip-method": Refusal("The archive is packed by a method other than deflate.", _RESAVE),
}
"""Of weight files."""

CODES: Mapping[str, Refusal] = REFUSALS | {
    "adapter": Refusal(
        "A backend is unknown, or its framework is not installed.", "xbfl doctor tells what is there."
    ),
    "config": Refusal(
        "A course file, an option or a model specification is wrong.", "The message names the place."
    ),
    "file": Refusal(
        "A file is missing, would be overwritten, or cannot hold what it should.", "The message says which."
    ),
    "mismatch": Refusal(
        "Two models are not the same function.",
        "The message names the layers and the code that would cure it.",
    ),
    "refused-input": Refusal("The input cannot be used as it is.", "The message says why."),
    "run-failed": Refusal(
        "Something started and could not finish; nothing half-done was kept.", "The message says why."
    ),
    "schema": Refusal(
        "Weights belong to another model, or a file is no schema or binding.",
        "Compare fingerprints with xbfl inspect.",
    ),
    "unsupported": Refusal(
        "A model holds something that the canonical schema cannot express.",
        "xbfl adapters --operators lists what it can.",
    ),
    "update-refused": Refusal(
        "An update holds NaN, a wrong shape or a wrong weight.", "Look at that participant's data."
    ),
    "worker-died": Refusal(
        "A worker process ended or raised.", "Its traceback is in the message; try --in-process."
    ),
}
"""Of everything."""
