"""What ``torch.load(weights_only=True)`` reads is read the same, or refused by its name."""

from __future__ import annotations

import collections
import io
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._weights_only_unpickler import _get_allowed_globals

from tests.weights.corpus.pickle_attacks import torch_file
from tests.weights.test_valid import to_numpy
from xbackend_fl import weights
from xbackend_fl.errors import FormatRefused
from xbackend_fl.weights.store import same_bits

WAYS: dict[str, dict[str, Any]] = {
    "usual": {},
    "old format": {"_use_new_zipfile_serialization": False},
    "protocol 3": {"pickle_protocol": 3},
    "protocol 4": {"pickle_protocol": 4},
    "protocol 5": {"pickle_protocol": 5},
}


def _draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def _complex() -> torch.Tensor:
    return torch.complex(_draw(2, 3), _draw(2, 3).flip(0))


def _with_attributes(tensor: torch.Tensor) -> torch.Tensor:
    tensor.extra, tensor.other = 3, "x"  # type: ignore[attr-defined]
    return tensor


def _training() -> dict[str, Any]:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(module.parameters())
    module(_draw(5, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    return {
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "epoch": 3,
    }


def _views() -> dict[str, Any]:
    base = _draw(3, 4)
    views = {"turned": base.T, "wide": base[:1].expand(5, 4), "inner": base[1:, 1:], "every": base[::2]}
    return {"base": base, "same": base, "none": base[:0], "one": base[0, 0], **views}


READ: dict[str, Callable[[], Any]] = {
    "conjugate": lambda: {"w": torch.conj(_complex())},
    "conjugate, turned": lambda: {"w": _complex().to(torch.complex128).mT.conj()},
    "negative": lambda: {"w": torch._neg_view(_draw(3))},
    "imaginary part of a conjugate": lambda: {"w": torch.conj(_complex()).imag},
    "negative conjugate": lambda: {"w": torch._neg_view(torch.conj(_complex()))},
    **{
        f"negative {dtype}": lambda dtype=dtype: {
            "w": torch._neg_view(torch.tensor([0, 1, 2, -3.5]).to(dtype))
        }
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8)
    },
    "tuples as keys": lambda: {("a", 1): _draw(2), ("b", 2.5, None): _draw(3)},
    "other keys": lambda: {
        1: _draw(1),
        2.5: _draw(2),
        None: _draw(3),
        b"x": _draw(1),
        torch.float16: _draw(2),
    },
    "sets": lambda: {"state": {"w": _draw(2)}, "done": {1, 2}, "none": set()},
    "buffers": lambda: {"w": torch.nn.Buffer(_draw(2)), "v": torch.nn.Buffer(_draw(3), persistent=False)},
    "parameters": lambda: {
        "w": _with_attributes(torch.nn.Parameter(_draw(2))),
        "v": torch.nn.Parameter(_draw(3), requires_grad=False),
    },
    "attributes": lambda: {"w": _with_attributes(_draw(3))},
    "counter": lambda: {"w": _draw(2), "c": collections.Counter("abca")},
    "ordered dict": lambda: collections.OrderedDict(w=_draw(2), v=_draw(1)),
    "plain values": lambda: {
        "w": _draw(2),
        "size": torch.Size([2, 3]),
        "device": torch.device("cuda:0"),
        "dtypes": [torch.float16, torch.float8_e4m3fnuz, torch.complex32, torch.quint8],
        "kinds": [torch.strided, torch.per_tensor_affine],
        "numbers": [3 + 4j, 1 << 70, -5, 1e300, False, None],
        "bytes": [b"abc", b"abc" * 100, bytearray(b"xyz")],
    },
    "complex": lambda: {"w": _complex(), "v": _complex().to(torch.complex128)},
    "views and ties": _views,
    "training": _training,
    "one tensor": lambda: _draw(3),
    "lists": lambda: [_draw(2), (_draw(3), {"a": _draw(1)})],
    "sizes": lambda: {"w": torch.tensor(3.0), "v": torch.empty(0), "u": torch.empty(3, 0, 2)},
    "storages": lambda: {"w": _draw(2), "s": _draw(3).untyped_storage()},
}


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    items: Any = ()
    if isinstance(value, torch.Tensor):
        yield name or "tensor", value
    elif isinstance(value, dict):
        items = ((key if isinstance(key, str) else repr(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        items = ((str(index), item) for index, item in enumerate(value))
    for key, item in items:
        yield from _tensors(item, f"{name}.{key}" if name else key)


def _loaded(path: Path) -> dict[str, torch.Tensor]:
    try:
        found = torch.load(path, weights_only=True)
    except Exception:  # noqa: BLE001  its reader does not know every protocol and format; the files are ours
        found = torch.load(path, weights_only=False)
    return dict(_tensors(found))


def _same(path: Path, expected: dict[str, torch.Tensor]) -> bool:
    archive = weights.open_weights(path)
    plain = {name: tensor.detach().resolve_conj() for name, tensor in expected.items()}
    plain = {name: tensor.resolve_neg() if tensor.is_neg() else tensor for name, tensor in plain.items()}
    return archive.keys() == plain.keys() and all(
        same_bits(archive[name], to_numpy(tensor)) for name, tensor in plain.items()
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", READ)
def test_read_as_torch_reads(name: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth.tar"
    if (name, way) == ("storages", "old format"):
        pytest.skip("PyTorch itself cannot read what it wrote")
    torch.save(READ[name](), path, **WAYS[way])
    assert _same(path, _loaded(path))


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    numbers = [np.float64(0.91), np.int64(3), np.float16(2), np.dtype("f4")]
    torch.save({"w": _draw(2), "best": numbers, "done": {1, 2}}, path)
    archive = weights.open_weights(path)
    assert list(archive) == ["w"]
    assert archive.notes == ("5 values that are no tensors were left out",)


def _quantised() -> Iterator[torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield torch.quantize_per_tensor(_draw(3), 0.1, 0, torch.quint8)
        yield torch.quantize_per_channel(_draw(3, 2), torch.ones(3), torch.zeros(3), 0, torch.qint8)


REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "meta": (lambda: torch.empty(2, 2, device="meta"), "tensor-kind", "meta device"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "tensor-kind", "sparse"),
    "compressed": (lambda: torch.eye(3).to_sparse_csr(), "tensor-kind", "sparse"),
    "quantised": (lambda: next(_quantised()), "tensor-kind", "quantised"),
    "quantised channels": (lambda: list(_quantised())[1], "tensor-kind", "quantised"),
    "nested": (lambda: torch.nested.nested_tensor([_draw(2), _draw(3)]), "tensor-kind", "nested"),
    "half complex": (lambda: _complex().to(torch.complex32), "dtype", "torch.complex32"),
    "another float8": (lambda: _draw(3).to(torch.float8_e5m2fnuz), "dtype", "torch.float8_e5m2fnuz"),
    "an exponent alone": (lambda: _draw(3).abs().to(torch.float8_e8m0fnu), "dtype", "float8_e8m0fnu"),
    "an array": (lambda: np.ones(3), "pickle-global", "_reconstruct"),
    "a module": (lambda: torch.nn.Linear(2, 2), "pickle-model", "Linear"),
    "a default dict": (lambda: collections.defaultdict(list), "pickle-global", "defaultdict"),
    "a set of tensors": (lambda: {_draw(2)}, "tensor-kind", "set of tensors"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("way", ["usual", "old format"])
def test_refused_by_its_name(name: str, way: str, tmp_path: Path) -> None:
    make, code, words = REFUSED[name]
    torch.save({"w": make()}, tmp_path / "x.pt", **WAYS[way])
    with pytest.raises(FormatRefused, match=words) as caught:
        weights.open_weights(tmp_path / "x.pt")
    assert caught.value.code == code


@pytest.mark.parametrize("name", sorted(_get_allowed_globals()))
def test_every_name_that_torch_allows_is_known(name: str, tmp_path: Path) -> None:
    """As a value beside the weights it is left out, or it is refused as what it is."""
    module, _, last = name.rpartition(".")
    program = b"\x80\x02c" + f"{module}\n{last}\n.".encode()
    (tmp_path / "x.pt").write_bytes(torch_file(program))
    try:
        code = "" if not weights.open_weights(tmp_path / "x.pt") else "read"
    except FormatRefused as error:
        code = error.code
    assert code in {"", "tensor-kind"}


def _rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as old:
        files = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in files.items():
            new.writestr(name, change(name, content))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int16, torch.complex64, torch.bool]
)
def test_a_file_of_a_big_endian_machine(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    expected = {"w": _draw(3, 4).to(dtype), "v": _draw(3, 4).to(dtype).T}
    torch.save(expected, path)
    width = dtype.itemsize // (2 if dtype.is_complex else 1)

    def turned(name: str, content: bytes) -> bytes:
        if name.endswith("byteorder"):
            return b"big"
        stored = "/data/" in name
        return np.frombuffer(content, f"u{width}").byteswap().tobytes() if stored else content

    _rewritten(path, turned)
    loaded = torch.load(path, weights_only=True)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    assert _same(path, expected)


def test_a_file_without_checksums(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": _draw(3)}, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert _same(tmp_path / "x.pt", torch.load(tmp_path / "x.pt", weights_only=True))
    assert "without checksums" in weights.open_weights(tmp_path / "x.pt").notes[0]


def test_parts_of_a_storage_in_the_old_format(tmp_path: Path) -> None:
    """As PyTorch 0.1 wrote them; today's reader still knows them."""
    buffer = io.BytesIO()
    torch.save({"w": _draw(6)}, buffer, _use_new_zipfile_serialization=False)
    # The last field of a storage's name is a part of it: None becomes ("v", 2, 4).
    content = buffer.getvalue()
    whole = b"K\x06Nt"
    assert content.count(whole) == 1
    part = content.replace(whole, b"K\x06X\x01\0\0\0vK\x02K\x04\x87t").replace(
        b"QK\x00K\x06\x85", b"QK\x00K\x04\x85"
    )
    (tmp_path / "x.pt").write_bytes(part)
    loaded = torch.load(tmp_path / "x.pt", weights_only=True)
    assert torch.equal(loaded["w"], _draw(6)[2:])
    assert _same(tmp_path / "x.pt", loaded)
