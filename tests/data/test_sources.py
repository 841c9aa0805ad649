"""What sources read is what Pillow, PyArrow and NumPy read; what they cannot read they name."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from xbackend_fl.data import Reading, absolute, content, source_of
from xbackend_fl.data.divide import by_shares
from xbackend_fl.data.source import kinds
from xbackend_fl.errors import ConfigError, FileError, RefusedInput

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)


def reading(base: Path, *shapes: tuple[int, ...], dtype: Any = np.float32, **more: Any) -> Reading:
    return Reading(base, tuple(np.zeros((1, *shape), dtype) for shape in shapes), **more)


def load(text: str, how: Reading) -> Any:
    source, place = source_of(text)
    return source.splits(place, how)


def own(text: str, how: Reading) -> Any:
    source, place = source_of(text)
    return source.own(place, how)


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (6, 5)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = Image.new(mode, size).getbands()
    array = RNG.integers(0, 256, (size[1], size[0], len(bands)), np.uint8)
    Image.fromarray(array if len(bands) > 1 else array[..., 0]).save(path)
    return path


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    for kind, count in (("dog", 7), ("cat", 9)):
        for number in range(count):
            picture(tmp_path / "zoo" / kind / f"{number}.png")
    return tmp_path


@given(st.integers(0, 300), st.tuples(*[st.floats(0.01, 10)] * 3), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_shares_divide_every_row_once(count: int, shares: tuple[float, float, float], seed: int) -> None:
    parts = by_shares(count, shares, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert all(abs(len(p) - s / sum(shares) * count) <= 1 for p, s in zip(parts, shares, strict=True))
    assert all(
        np.array_equal(one, two) for one, two in zip(parts, by_shares(count, shares, seed), strict=True)
    )


def test_a_part_of_which_no_image_can_be_read_is_said_as_that(tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        for kind in ("cat", "dog"):
            path = picture(tmp_path / "zoo" / part / kind / "1.png")
            if part == "train":
                path.write_bytes(b"no image")
    message = "no train examples, of 4 in all: 2 images that cannot be read are left out"
    with pytest.raises(ConfigError, match=message) as caught:
        load("images:zoo", reading(tmp_path, (3, 5, 6), on_error="skip"))
    assert caught.value.hint == "data.on_error: stop says what is wrong with the first of them"


def test_a_row_of_text_is_counted_as_every_other_is(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n" + "1,2,0\n" * 19 + "1,0\n")
    with pytest.raises(FileError, match=r"csv:t.csv: .*row 19 \(counted from 0, behind the line of names\)"):
        own("csv:t.csv#a,b:y", reading(tmp_path))


def test_images_are_those_that_pillow_reads(zoo: Path) -> None:
    how = reading(zoo, (3, 5, 6))
    data = own("images:zoo", how)
    files = sorted((zoo / "zoo").glob("*/*.png"))
    expected = np.stack([np.asarray(Image.open(file)).transpose(2, 0, 1) for file in files])
    assert data.inputs[0].tobytes() == expected.tobytes()
    assert data.targets.tolist() == [0] * 9 + [1] * 7
    assert data.notes == ("images:zoo: classes 0 cat, 1 dog, sorted by name",)
    splits = load("images:zoo", how)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [10, 3, 3]
    assert splits.train.inputs[0] is splits.test.inputs[0]


def test_images_are_read_once(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = reading(zoo, (3, 5, 6))
    first = content(own("images:zoo", how).inputs[0])
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was read again"))
        assert content(own("images:zoo", how).inputs[0]) == first
    picture(zoo / "zoo" / "cat" / "0.png")
    assert content(own("images:zoo", how).inputs[0]) != first


def test_folders_of_parts_and_stated_classes(tmp_path: Path) -> None:
    for part, kinds_there in (("train", ("a", "b")), ("val", ("b",)), ("test", ("a", "b"))):
        for kind in kinds_there:
            picture(tmp_path / "x" / part / kind / "1.png")
    splits = load("images:x", reading(tmp_path, (3, 5, 6)))
    assert [p.labels.tolist() for p in (splits.train, splits.validation, splits.test)] == [
        [0, 1],
        [1],
        [0, 1],
    ]
    stated = load("images:x", reading(tmp_path, (3, 5, 6), classes=("b", "a", "never")))
    assert stated.train.labels.tolist() == [1, 0]
    with pytest.raises(ConfigError, match=r"the class 'a' is not one of data.classes, which are b, c"):
        load("images:x", reading(tmp_path, (3, 5, 6), classes=("b", "c")))
    with pytest.raises(ConfigError, match="does not tell the classes of all") as alone:
        load("images:x", reading(tmp_path, (3, 5, 6), shared=False))
    assert alone.value.hint is not None
    assert alone.value.hint.endswith("data.classes: [a, b]")


@pytest.mark.parametrize("broken", ["half", "no image"])
def test_a_broken_image_stops_or_is_skipped(zoo: Path, broken: str) -> None:
    file = zoo / "zoo" / "cat" / "3.png"
    file.write_bytes(file.read_bytes()[:60] if broken == "half" else b"hello")
    with pytest.raises(ConfigError, match=r"cat/3.png \(image 3\) cannot be read"):
        own("images:zoo", reading(zoo, (3, 5, 6)))
    data = own("images:zoo", reading(zoo, (3, 5, 6), on_error="skip"))
    assert data.targets.tolist() == [0] * 8 + [1] * 7
    assert data.notes[-1].endswith("1 of 16 images cannot be read and are skipped: cat/3.png (image 3)")


def test_grey_and_colour(zoo: Path) -> None:
    picture(zoo / "zoo" / "cat" / "grey.png", "L")
    data = own("images:zoo", reading(zoo, (3, 5, 6)))
    grey = data.inputs[0][9]
    assert (grey == grey[:1]).all()
    assert "images:zoo: 1 images: grey read as colour" in data.notes
    with pytest.raises(ConfigError, match=r"cat/0.png \(image 0\) is in colour, and .* one channel"):
        own("images:zoo", reading(zoo, (1, 5, 6)))
    picture(zoo / "clear" / "a" / "1.png", "RGBA")
    with pytest.raises(ConfigError, match="transparent"):
        own("images:clear", reading(zoo, (3, 5, 6)))


def test_sizes(zoo: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"is 6 × 5, and the course's `input` says 8 × 4 \(width × height\)"
    ):
        own("images:zoo", reading(zoo, (3, 4, 8)))
    data = own("images:zoo#resize", reading(zoo, (3, 4, 8)))
    expected = Image.open(zoo / "zoo" / "cat" / "0.png").resize((8, 4), Image.Resampling.BILINEAR)
    assert np.array_equal(data.inputs[0][0], np.asarray(expected).transpose(2, 0, 1))
    assert "images:zoo#resize: 16 images: resized" in data.notes


def test_folders_that_are_none(zoo: Path) -> None:
    how = reading(zoo, (3, 5, 6))
    with pytest.raises(FileError, match="no such folder"):
        own("images:nowhere", how)
    (zoo / "zoo" / "bird").mkdir()
    with pytest.raises(ConfigError, match="the class 'bird' has no image"):
        own("images:zoo", how)
    with pytest.raises(ConfigError, match=r"holds no folder, and every class is one; it holds 0.png"):
        own("images:zoo/cat", how)
    with pytest.raises(ConfigError, match="1 or 3 channels"):
        own("images:zoo", reading(zoo, (8,)))


ROWS = 300
TABLE = {
    "age": RNG.integers(0, 90, ROWS),
    "bmi": RNG.uniform(15, 40, ROWS),
    "sex": RNG.integers(0, 2, ROWS).astype(bool),
    "site": np.array(["x", "y", "z"])[RNG.integers(0, 3, ROWS)],
    "part": np.array(["train", "train", "validation", "test"])[np.arange(ROWS) % 4],
    "outcome": np.array(["well", "ill", "dead"])[RNG.integers(0, 3, ROWS)],
    "days": RNG.normal(0, 1, ROWS),
}


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    parquet.write_table(pa.table(TABLE), tmp_path / "t.parquet", row_group_size=64)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(TABLE)
        writer.writerows(zip(*[column.tolist() for column in TABLE.values()], strict=True))
    return tmp_path


@pytest.mark.parametrize("kind", ["parquet:t.parquet", "csv:t.csv"])
def test_tables_are_their_columns(tables: Path, kind: str) -> None:
    how = reading(tables, (2,), split_by="part", owners="site")
    splits = load(f"{kind}#age,bmi:outcome", how)
    rows = np.flatnonzero(TABLE["part"] == "train")
    expected = np.stack([TABLE["age"], TABLE["bmi"]], 1).astype(np.float32)[rows]
    found = splits.train.gather(np.arange(len(splits.train)))
    assert found.inputs[0].tobytes() == expected.tobytes()
    assert found.targets.tolist() == np.unique(TABLE["outcome"], return_inverse=True)[1][rows].tolist()
    assert splits.owners is not None
    assert splits.owners.tolist() == TABLE["site"][rows].tolist()
    assert splits.train.notes == (
        f"{kind}: values of bmi are rounded to float32, the nearest to each",
        f"{kind}: outcome: classes 0 dead, 1 ill, 2 well, sorted by name",
    )


def test_all_other_columns(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"a": [1.5, 2.5], "b": [3, 4], "y": [0.25, 1.0]}), tmp_path / "t.parquet")
    data = own("parquet:t.parquet#*:y", reading(tmp_path, (2,)))
    assert data.inputs[0].tolist() == [[1.5, 3], [2.5, 4]]
    assert data.targets.dtype == np.float32
    assert data.notes == ("parquet:t.parquet: the inputs are the columns a, b",)


def test_lists_and_several_inputs(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (5, 12), np.uint8)
    table = {
        "x": pa.FixedSizeListArray.from_arrays(pixels.reshape(-1), 12),
        "m": [[1, 2], [3, 4], [5, 6], [7, 8], [9, 0]],
    }
    parquet.write_table(pa.table({**table, "y": range(5)}), tmp_path / "t.parquet")
    data = own("parquet:t.parquet#x:y", reading(tmp_path, (1, 3, 4)))
    assert data.inputs[0].dtype == np.uint8
    assert data.inputs[0].tobytes() == pixels.tobytes()
    assert "rows of [12] values are read as [1, 3, 4], in their order" in data.notes[0]
    both = own("parquet:t.parquet#x,m:y", reading(tmp_path, (12,), (2,)))
    assert both.inputs[1].tolist() == table["m"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("agee:outcome", r"no column 'agee'; there are age, bmi, sex, site, part, outcome, days"),
        ("age", r"which column is the target\?"),
        ("age,site:outcome", r"site: values of the type string, such as '\w', where numbers are wanted"),
    ],
)
def test_columns_that_are_none(tables: Path, columns: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        own(f"parquet:t.parquet#{columns}", reading(tables, (2,)))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1, None, 3], "x: a missing value in row 1"),
        ([[1, 2], [3], [4, 5]], "x: a list of 1 values in row 1, after lists of 2"),
        (
            [1, 2**24 + 1, 3],
            r"x: int64 values that float32, .* cannot hold: 1 of 3 values, as 16777217 at row 1",
        ),
    ],
)
def test_values_that_are_none(tmp_path: Path, column: list[Any], message: str) -> None:
    parquet.write_table(pa.table({"x": column, "y": [0, 1, 0]}), tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match=message):
        own("parquet:t.parquet#x:y", reading(tmp_path, (1,)))


def test_another_dtype_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    for number, x in enumerate(([1.0, 2.0], [[3.0], [4.0]])):
        parquet.write_table(pa.table({"x": x, "y": [0, 1]}), tmp_path / "both" / f"{number}.parquet")
    with pytest.raises(
        ConfigError, match=r"1.parquet: x: rows of float32 \[1\] from row 0 on, after rows of float32 \[\]"
    ):
        own("parquet:both#x:y", reading(tmp_path, (1,)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,y\n1,0\nhello,1\n", r"csv:t.csv: .*hello"),
        ("a,y\n1,0\n2\n", r"csv:t.csv: .*[Ee]xpected 2 columns"),
        ("a,y\n1,0\n,1\n", "a: a missing value in row 1"),
        ("a,y\n", "no rows"),
    ],
)
def test_texts_that_are_no_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(RefusedInput, match=message):
        own("csv:t.csv#a:y", reading(tmp_path, (1,)))


def test_a_file_that_was_cut_short(tables: Path) -> None:
    whole = (tables / "t.parquet").read_bytes()
    (tables / "t.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"parquet:t.parquet: "):
        own("parquet:t.parquet#age:days", reading(tables, (1,)))


def test_semicolons_and_other_parts(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;b;y\n1;2;0\n3;4;1\n")
    assert own("csv:t.csv#a,b:y", reading(tmp_path, (2,))).inputs[0].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ConfigError, match="no test examples, of 2 in all"):
        load("csv:t.csv#a,b:y", reading(tmp_path, (2,)))
    with pytest.raises(ConfigError, match="the value '2' is not one of train, validation, test"):
        load("csv:t.csv#a:y", reading(tmp_path, (1,), split_by="b"))


def test_places_are_absolute(tmp_path: Path) -> None:
    assert kinds() == ("csv", "images", "leaf", "npz", "parquet")
    assert absolute("csv:x.csv#a:b", tmp_path) == f"csv:{tmp_path}/x.csv#a:b"
    assert absolute("x.npz", tmp_path) == f"npz:{tmp_path}/x.npz"
    assert absolute("json:loads", tmp_path) == "json:loads"


def test_a_folder_that_is_not_writable(zoo: Path) -> None:
    (zoo / "taken").write_text("")
    with pytest.raises(ConfigError, match="cannot keep what was read") as refused:
        own("images:zoo", reading(zoo, (3, 5, 6), cache=zoo / "taken"))
    assert refused.value.hint is not None
    assert "data.cache" in refused.value.hint
