"""A new format is one file: nothing else names the ones that there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import scipy.io

from tests.beside import beside, naming
from tests.command import xbfl
from xbackend_fl.formats.registry import FORMATS
from xbackend_fl.weights.store import format_of, open_weights, save

PACKAGE = "xbackend_fl.formats.kinds"
MATRIX_MARKET = """
    import numpy as np

    from xbackend_fl.formats.archive import Archive, Entry, checked
    from xbackend_fl.formats.format import Format
    from xbackend_fl.formats.source import open_source

    _MAGIC = b"%%MatrixMarket matrix array real general"


    def read(path):
        source = open_source(path)
        lines = [line for line in bytes(source.view).splitlines() if not line.startswith(b"%")]
        if not bytes(source.view).startswith(_MAGIC) or not lines or len(lines[0].split()) != 2:
            source.refuse("bad-header", "is no dense matrix")
        shape = tuple(map(int, lines[0].split()))
        if len(lines) - 1 != shape[0] * shape[1]:
            source.refuse("size-mismatch", f"{shape} values are {len(lines) - 1}")
        found = np.array(lines[1:], np.float64).reshape(shape[::-1]).T.copy()
        return checked(Archive(path, "matrix-market", {"matrix": Entry.from_array(found)}, {}))


    FORMAT = Format("matrix-market", read, (".mtx",), matches=lambda head, _: head.startswith(_MAGIC))
"""


@pytest.mark.quick
def test_a_format_is_one_file_of_its_name(root: Path) -> None:
    folder = root / "xbackend_fl/formats/kinds"
    files = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    assert {name.replace("-", "_") for name in FORMATS} == files
    endings = [ending for item in FORMATS.values() for ending in item.suffixes]
    assert len(set(endings)) == len(endings)
    names = r'formats\.(kinds )?import .*(hdf5|keras|npz|onnx|pytorch|checkpoint|saved_model)|FORMATS\["'
    assert naming(root, names, outside="formats/") == []


@pytest.mark.parametrize("name", ["net.mtx", pytest.param("net.download", marks=pytest.mark.slow)])
def test_a_file_that_is_there_is_a_format(name: str, tmp_path: Path) -> None:
    """What SciPy wrote is read, by its ending and by its content, converted, and refused where it is broken."""
    matrix = np.random.default_rng(0).standard_normal((3, 5))
    with (tmp_path / name).open("wb") as file:
        scipy.io.mmwrite(file, matrix, precision=17)
    arguments = ["convert", name, "net.safetensors"]
    alone = xbfl(*arguments, cwd=tmp_path)
    assert alone.returncode == 2
    assert f"cannot tell the format of {name} by its name" in alone.stderr
    env = beside(tmp_path / "own", PACKAGE, "matrix_market", MATRIX_MARKET)
    done = xbfl(*arguments, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    found = safetensors.numpy.load_file(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(found["matrix"], matrix)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-30])
    broken = xbfl("inspect", name, "--from", "matrix-market", cwd=tmp_path, env=env)
    assert broken.returncode == 2
    assert "size-mismatch" in broken.stderr


@pytest.mark.quick
def test_a_header_whose_length_begins_like_a_pickle_is_safetensors(tmp_path: Path) -> None:
    """Its first byte is that of a pickle, as of one file in 32."""
    for length in range(200):
        array = np.arange(3, dtype=np.float32)
        save(tmp_path / "net.safetensors", {"x" * (length + 1): array}, overwrite=True)
        head = (tmp_path / "net.safetensors").read_bytes()
        if head[:1] == b"\x80":
            break
    assert head[:1] == b"\x80"
    (tmp_path / "download").write_bytes(head)
    assert format_of(tmp_path / "download").name == "safetensors"
    assert list(open_weights(tmp_path / "download")) == ["x" * (length + 1)]
