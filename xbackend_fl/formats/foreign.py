"""Files and folders of other programs, known by their first bytes, endings or contents, and refused by their names."""

from __future__ import annotations

from pathlib import Path

from xbackend_fl.errors import FormatRefused

_BEGIN = 512
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (
        0,
        b"GGUF",
        "is a GGUF file, of llama.cpp",
        "get the weights that it was made from: its own are packed in blocks",
    ),
    (
        0,
        b"tjgg",
        "is a GGML file, of llama.cpp",
        "get the weights that it was made from: its own are packed in blocks",
    ),
    (4, b"TFL3", "is a TensorFlow Lite model", "get the SavedModel or Keras model that it was made from"),
    (4, b"ET12", "is an ExecuTorch program", "save the state_dict of the model that it was made from"),
    (0, b"\x1f\x8b", "is packed with gzip", "unpack it first: gunzip FILE"),
    (0, b"BZh", "is packed with bzip2", "unpack it first: bunzip2 FILE"),
    (0, b"\xfd7zXZ\x00", "is packed with xz", "unpack it first: unxz FILE"),
    (0, b"\x28\xb5\x2f\xfd", "is packed with Zstandard", "unpack it first: unzstd FILE"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", "unpack it first"),
    (
        0,
        b"version https://git-lfs",
        "is a pointer of Git LFS, and not the file itself",
        "fetch it: git lfs pull",
    ),
    (0, b"<!doctype html", "is a web page, and not the file that was to be downloaded", "download it again"),
    (0, b"<html", "is a web page, and not the file that was to be downloaded", "download it again"),
    (
        0,
        b"\x93NUMPY",
        "is one array of NumPy's, without a name",
        "save it with a name: numpy.savez(path, name=array)",
    ),
)
_ENDINGS: dict[str, tuple[str, str]] = {
    ".msgpack": ("is a msgpack file of Flax", "save it as safetensors: safetensors.flax.save_file(...)"),
    ".pb": ("is a graph of TensorFlow", "give the folder of the SavedModel, which has a variables folder"),
    ".mlmodel": ("is a Core ML model", "get the model that it was made from"),
    ".mlpackage": ("is a Core ML package", "get the model that it was made from"),
    ".caffemodel": ("is a Caffe model", "convert it to ONNX where Caffe is installed"),
    ".engine": ("is an engine of TensorRT", "get the ONNX model that it was made from"),
    ".plan": ("is an engine of TensorRT", "get the ONNX model that it was made from"),
}


def refuse_file(path: Path) -> None:
    """Refuse a file of another program.

    Raises:
        FormatRefused: ``foreign-format``, by its name and with the cure.
    """
    head = b""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(_BEGIN)
    for at, signature, what, cure in _SIGNATURES:
        found = head[at : at + len(signature)]
        if found == signature or (signature[:1] == b"<" and found.lower() == signature):
            raise _refusal(path, what, cure)
    if path.suffix in _ENDINGS and path.exists():
        raise _refusal(path, *_ENDINGS[path.suffix])


def refuse_folder(path: Path) -> None:
    """Refuse a folder of another program.

    Raises:
        FormatRefused: ``foreign-format``, by its name and with the cure.
    """
    names = {item.name for item in path.iterdir()}
    if any(name.endswith(".distcp") for name in names):
        raise _refusal(
            path,
            "is a checkpoint of torch.distributed, in parts of several processes",
            "join it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER net.pt",
        )
    if names & {"zero_to_fp32.py"} or any(
        name.endswith(("_optim_states.pt", "_model_states.pt")) for name in names
    ):
        raise _refusal(
            path,
            "is a checkpoint of DeepSpeed, in parts of several processes",
            "join it with the script that lies beside it: python zero_to_fp32.py . OUTPUT",
        )
    if names & {"_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt"}:
        raise _refusal(
            path,
            "is a checkpoint of Orbax",
            "restore it with Orbax and save it: safetensors.flax.save_file(...)",
        )
    if "model.json" in names and any("-shard" in name for name in names):
        raise _refusal(
            path, "is a model of TensorFlow.js", "get the Keras model or SavedModel that it was made from"
        )
    if any(Path(name).with_suffix(".xml").name in names for name in names if name.endswith(".bin")):
        raise _refusal(path, "is a model of OpenVINO", "get the ONNX model that it was made from")


def _refusal(path: Path, what: str, cure: str) -> FormatRefused:
    refusal = FormatRefused("foreign-format", path, what)
    refusal.hint = cure
    return refusal
