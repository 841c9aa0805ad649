"""Hostile pickles and tensor descriptions inside PyTorch's files."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.weights.corpus.case import Case, codes, on_demand

PICKLE = codes("bad-pickle")
GLOBAL = codes("pickle-global")


def archive(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return buffer.getvalue()


def torch_file(program: bytes, storages: Mapping[str, bytes] | None = None, **more: bytes) -> bytes:
    """A PyTorch file around any pickle."""
    held = {"0": bytes(16)} if storages is None else storages
    files = {"net/data.pkl": program, "net/byteorder": b"little"}
    files |= {f"net/data/{key}": raw for key, raw in held.items()}
    files |= {f"net/{name}": raw for name, raw in more.items()}
    return archive({**files, "net/version": b"3\n"})


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if abs(value) < 1 << 31 else pickle.dumps(value, 2)[2:-1]


def tensor(
    key: str = "0",
    count: int = 4,
    offset: int = 0,
    shape: tuple[int, ...] = (4,),
    strides: tuple[int, ...] = (1,),
    storage: str = "torch\nFloatStorage",
    call: str = "torch._utils\n_rebuild_tensor_v2",
) -> bytes:
    """The opcodes that build one tensor."""
    return b"".join(
        [
            f"c{call}\n((".encode(),
            text("storage"),
            f"c{storage}\n".encode(),
            text(key),
            text("cpu"),
            number(count),
            b"tQ",
            number(offset),
            b"(" + b"".join(map(number, shape)) + b"t",
            b"(" + b"".join(map(number, strides)) + b"t",
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
    )


def state(*tensors: bytes) -> bytes:
    """A pickle of a dict of tensors."""
    items = b"".join(text(f"t{index}") + built for index, built in enumerate(tensors))
    return b"\x80\x02}(" + items + b"u."


class Evil:
    """Unpickling it calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def attacks() -> Iterator[Case]:
    """All of them."""
    yield from _programs()
    yield from _tensors()


def _programs() -> Iterator[Case]:
    import os
    import subprocess

    for protocol in range(6):
        for label, thing in {
            "system": Evil(os.system, "touch canary"),
            "popen": Evil(subprocess.Popen, ["touch", "canary"]),
            "eval": Evil(eval, "open('canary','w')"),
            "exec": Evil(exec, "open('canary','w')"),
            "open": Evil(open, "canary", "w"),
        }.items():
            yield Case(
                f"pickle: {label}, protocol {protocol}",
                "x.pt",
                torch_file(pickle.dumps({"a": thing}, protocol)),
                codes("pickle-global", "pickle-opcode"),
            )
    for name in (
        "builtins\ngetattr",
        "builtins\n__import__",
        "torch\nload",
        "torch.hub\nload",
        "torch.jit\nload",
        "torch.storage\n_load_from_bytes",
        "builtins\nfrozenset",
        "builtins\nset_",
        "_codecs\ndecode",
        "collections\nUserDict",
        "torch\nsave",
        "torch\nTensors",
        "torch.cuda\nload",
        "torch._utils\n_rebuild_tensor_v4",
        "torch._utils\nExceptionWrapper",
        "torch.serialization\n_load",
        "numpy.core.multiarray\n_reconstruct",
        "numpy\nload",
        "collections\ndefaultdict",
        "functools\npartial",
        "operator\nattrgetter",
        "pathlib\nPosixPath",
        "torch.serialization\nload",
        "torch.utils.data\nDataset",
        "os\nsystem",
    ):
        yield Case(
            f"pickle: names {name!r}", "x.pt", torch_file(b"\x80\x02c" + name.encode() + b"\n."), GLOBAL
        )
    kind = codes("tensor-kind")
    for name in (
        "torch._utils\n_rebuild_qtensor",
        "torch._utils\n_rebuild_sparse_tensor",
        "torch._utils\n_rebuild_meta_tensor_no_storage",
        "torch._utils\n_rebuild_nested_tensor",
        "torch._utils\n_rebuild_wrapper_subclass",
        "torch._utils\n_rebuild_device_tensor_from_numpy",
        "torch\nQInt8Storage",
        "torch\nFloatTensor",
        "torch.cuda.sparse\nHalfTensor",
    ):
        yield Case(f"pickle: names {name!r}", "x.pt", torch_file(b"\x80\x02c" + name.encode() + b"\n."), kind)
    for label, program, expected in (
        ("a bare function", b"ctorch._tensor\n_rebuild_from_type_v2\n.", codes()),
        ("a bare class", b"ctorch.nn.parameter\nParameter\n.", codes()),
        ("a class without a tensor", b"ctorch.nn.parameter\nParameter\n)\x81.", PICKLE),
        ("a function made like a class", b"c_codecs\nencode\n)\x81.", GLOBAL),
        ("a type of nothing", b"ctorch._tensor\n_rebuild_from_type_v2\n)R.", PICKLE),
        (
            "a type that is a function",
            b"ctorch._tensor\n_rebuild_from_type_v2\n(c_codecs\nencode\nctorch\nTensor\n)}tR.",
            PICKLE,
        ),
        (
            "a type in a type",
            b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nctorch\nTensor\n)}tR.",
            PICKLE,
        ),
        ("a set of a number", b"c__builtin__\nset\nK\x01\x85R.", PICKLE),
        ("a set of tensors", b"c__builtin__\nset\n]" + tensor() + b"a\x85R.", kind),
        ("tensors for a set", b"\x8f(" + tensor() + b"\x90.", kind),
        ("items for what is no set", b"}(N\x90.", PICKLE),
        ("a counter of a list", b"ccollections\nCounter\n]\x85R.", PICKLE),
        ("bytes of a number", b"c_codecs\nencode\nK\x01\x85R.", PICKLE),
        ("bytes beyond the end", b"B\xff\xff\xff\xffabc.", PICKLE),
        ("long bytes beyond the end", b"\x8e" + b"\xff" * 8 + b"abc.", PICKLE),
        ("a state for a tensor", tensor() + b"}b.", PICKLE),
        ("a key nested in tuples", b"}N\x85\x85Ns.", PICKLE),
        ("a key of forty values", b"}(" + b"N" * 40 + b"tNs.", PICKLE),
        ("a large number", b"\x8a\xc8" + bytes(200) + b".", codes()),
        ("a part of a storage", tensor().replace(b"tQ", b"NtQ", 1) + b".", PICKLE),
        (
            "a tensor marked with text",
            tensor()[:-2] + b"}" + text("conj") + text("yes") + b"stR.",
            PICKLE,
        ),
        ("a conjugate of what is real", tensor()[:-2] + b"}" + text("conj") + b"\x88stR.", PICKLE),
        ("a tensor with an unknown mark", tensor()[:-2] + b"}" + text("zip") + b"\x88stR.", kind),
    ):
        yield Case(f"pickle: {label}", "x.pt", torch_file(b"\x80\x02" + program), expected)
    yield Case(
        "pickle: whole model",
        "x.pt",
        torch_file(b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81."),
        codes("pickle-model"),
    )
    odd = {
        "empty": b"",
        "only a stop": b".",
        "a mark": b"(.",
        "pops nothing": b"0.",
        "pops a mark": b"(0.",
        "tuple without mark": b"Nt.",
        "no stop": b"\x80\x02N",
        "two objects": b"\x80\x02NN.",
        "more behind": b"\x80\x02}.}",
        "appends to a dict": b"\x80\x02}Na.",
        "items for a list": b"\x80\x02](NNu.",
        "items for a number": b"\x80\x02K\x01(NNu.",
        "items for a tensor": state()[:-1].replace(b"}(u", b"") + tensor() + b"(NNu.",
        "odd number of items": b"\x80\x02}(Nu.",
        "key a list": b"\x80\x02}]Ns.",
        "key a dict": b"\x80\x02}}Ns.",
        "recalls nothing": b"\x80\x02h\x05.",
        "remembers nothing": b"\x80\x02q\x05.",
        "state for a list": b"\x80\x02]}b.",
        "state for nothing": b"\x80\x02}b.",
        "text beyond the end": b"\x80\x02X\xff\xff\0\0abc.",
        "text not UTF-8": b"\x80\x02X\x01\0\0\0\xff.",
        "number beyond the end": b"\x80\x02\x8a\xc8" + bytes(100) + b".",
        "protocol 9": b"\x80\x09}.",
        "name without end": b"\x80\x02ctorch",
        "name not UTF-8": b"\x80\x02c\xff\n\xff\n.",
        "long name": b"\x80\x02c" + b"a" * 1000 + b"\nb\n.",
        "calls a number": b"\x80\x02K\x01)R.",
        "calls with a list": b"\x80\x02ccollections\nOrderedDict\n]R.",
        "dict with items": b"\x80\x02ccollections\nOrderedDict\n]Na\x85R.",
        "storage of nothing": b"\x80\x02NQ.",
        "storage a number": b"\x80\x02K\x01Q.",
        "global of numbers": b"\x80\x04K\x01K\x01\x93.",
        "itself in itself": b"\x80\x02]q\0h\0a.",
    }
    for label, program in odd.items():
        expected = PICKLE | codes("trailing-data", "pickle-global", "pickle-limit")
        yield Case(f"pickle: {label}", "x.pt", torch_file(program), expected)
    for opcode in (
        "\x81",
        "\x82",
        "\x92",
        "i",
        "o",
        "P",
        "B",
        "C",
        "S",
        "T",
        "U",
        "V",
        "I",
        "L",
        "F",
        "l",
        "d",
        "p",
        "g",
        "2",
        "1",
        "\x96",
        "\x97",
        "\x8f",
    ):
        program = b"\x80\x02" + opcode.encode("latin-1") + bytes(12) + b"."
        expected = PICKLE if opcode == "\x81" else codes("pickle-opcode")
        yield Case(f"pickle: opcode {opcode!r}", "x.pt", torch_file(program), expected)
    limit = codes("pickle-limit")
    yield Case("pickle: huge memo index", "x.pt", torch_file(b"\x80\x02}r\xff\xff\xff\xff."), codes())
    yield Case("pickle: memo of 2^27", "x.pt", torch_file(b"\x80\x02}r\0\0\0\x08."), codes())
    yield Case("pickle: a million lists", "x.pt", torch_file(b"\x80\x02(" + b"]" * 1_000_000 + b"t."), limit)
    yield Case("pickle: deep lists", "x.pt", torch_file(b"\x80\x02" + b"]" * 100 + b"a" * 99 + b"."), limit)
    yield Case(
        "pickle: millions of steps", "x.pt", torch_file(b"\x80\x02" + b"N0" * 2_100_000 + b"N."), limit
    )
    yield from map(_flood, FLOODS)
    yield Case("pickle: long text", "x.pt", torch_file(b"\x80\x02" + text("a" * 100_000) + b"."), limit)
    doubled = (
        b"\x80\x02]"
        + b"".join(b"q" + bytes([i]) + b"0]h" + bytes([i]) + b"ah" + bytes([i]) + b"a" for i in range(60))
        + b"."
    )
    yield Case("pickle: doubles sixty times", "x.pt", torch_file(doubled), limit)
    bomb = (
        b"\x80\x02"
        b"]"
        + b"".join(b"q" + bytes([i]) + b"0(h" + bytes([i]) + b"h" + bytes([i]) + b"t" for i in range(60))
        + tensor()[:-2]
        + b"R."
    )
    yield Case("pickle: doubled tuple in a call", "x.pt", torch_file(bomb), PICKLE | limit)


FLOODS: dict[str, Callable[[], bytes]] = {
    "three million numbers": lambda: b"](" + b"J\x01\0\x01\0" * 3_000_000 + b"e.",
    "more numbers than a model has leaves": lambda: b"](" + b"J\x01\0\x01\0" * 600_000 + b"e.",
    "remembers millions": lambda: b"N" + b"\x94" * 3_900_000 + b".",
    "wide text": lambda: b"(" + text("\N{GRINNING FACE}" + "a" * 60_000) * 780 + b"t.",
    "a million keys": lambda: b"}(" + b"".join(text(f"{n:07d}") + b"N" for n in range(1_100_000)) + b"u.",
    "half a million dicts": lambda: b"(" + b"}K\x01Ns" * 690_000 + b"t.",
    "half a million tuples": lambda: b"(" + b"J\x01\0\x01\0\x85" * 690_000 + b"t.",
}
"""Pickles that are small on disk and large in memory."""


def _flood(label: str) -> Case:
    content = on_demand("x.pt", lambda: torch_file(b"\x80\x02" + FLOODS[label]()))
    return Case(f"pickle: {label}", "x.pt", content, codes("pickle-limit"))


def _tensors() -> Iterator[Case]:
    size = codes("size-mismatch")
    for label, built, expected in (
        ("storage missing", tensor(key="9"), size),
        ("storage outside", tensor(key="../data.pkl"), size),
        ("storage shorter", tensor(count=8), size),
        ("storage longer", tensor(count=2), size),
        ("storage huge", tensor(count=1 << 62), size),
        ("storage negative", tensor(count=-4), PICKLE),
        ("offset beyond", tensor(offset=4), size),
        ("offset by one", tensor(offset=1), size),
        ("offset negative", tensor(offset=-1), codes("bad-shape")),
        ("offset huge", tensor(offset=1 << 60), codes("bad-shape")),
        ("stride beyond", tensor(strides=(2,)), size),
        ("stride negative", tensor(strides=(-1,)), codes("bad-shape")),
        ("stride huge", tensor(strides=(1 << 61,)), codes("bad-shape")),
        ("stride overflows", tensor(shape=(5,), strides=((1 << 46),)), size),
        ("size negative", tensor(shape=(-4,)), codes("bad-shape")),
        ("size huge", tensor(shape=(1 << 50,), strides=(0,)), codes("bad-shape")),
        ("sizes multiply", tensor(shape=(1 << 30, 1 << 30), strides=(0, 0)), codes("bad-shape")),
        ("expanded", tensor(shape=(1 << 28,), strides=(0,)), codes("expansion")),
        ("more strides", tensor(strides=(1, 1)), codes("bad-shape")),
        ("rank of 40", tensor(shape=(1,) * 40, strides=(1,) * 40), codes("bad-shape")),
        (
            "size of text",
            tensor().replace(b"(J\x04\0\0\0t", b"(X\x01\0\0\0at", 1),
            codes("bad-shape", "bad-pickle"),
        ),
        ("quantised storage", tensor(storage="torch\nQUInt8Storage"), codes("tensor-kind")),
        ("unknown storage", tensor(storage="torch\nQUInt9Storages"), GLOBAL),
        ("storage no name", tensor().replace(b"ctorch\nFloatStorage\n", b"K\x01"), PICKLE),
        ("untyped without dtype", tensor(storage="torch.storage\nUntypedStorage"), PICKLE),
        ("v3 without dtype", tensor(call="torch._utils\n_rebuild_tensor_v3"), PICKLE),
        ("parameter of nothing", b"ctorch._utils\n_rebuild_parameter\nN\x85R", PICKLE),
        ("parameter of a dict", b"ctorch._utils\n_rebuild_parameter\n}\x89}\x87R", PICKLE),
        ("hooks", tensor().replace(b"ccollections\nOrderedDict\n)RtR", b"(lt R"), codes("pickle-opcode")),
        ("calls a storage", b"ctorch\nFloatStorage\n)R", GLOBAL),
    ):
        yield Case(f"tensor: {label}", "x.pt", torch_file(state(built)), expected)
    yield Case("tensor: storage with other size", "x.pt", torch_file(state(tensor()), {"0": bytes(15)}), size)
    deflated = io.BytesIO()
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("net/data.pkl", state(tensor()))
        out.writestr("net/data/0", bytes(16))
    yield Case("tensor: deflated storage", "x.pt", deflated.getvalue(), codes())
    broken = torch_file(state(tensor()), {"0": b"0123456789abcdef"}).replace(
        b"0123456789abcdef", b"0123456789abcdeX"
    )
    yield Case("tensor: a changed bit", "x.pt", broken, codes("checksum"))
    dotted = b"\x80\x02}(" + text("a.b") + tensor() + text("a") + b"}" + text("b") + tensor() + b"su."
    yield Case("tensor: two paths to one name", "x.pt", torch_file(dotted), codes("duplicate-name"))
    yield Case(
        "tensor: unprintable name",
        "x.pt",
        torch_file(b"\x80\x02}(" + text("a\x1b[2J") + tensor() + b"u."),
        codes("bad-name"),
    )
