"""Images in columns of Parquet files are what Pillow decodes; one that is broken is named with its file and row."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from xbackend_fl.data import Reading, source_of
from xbackend_fl.errors import ConfigError

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (7, 5, 6, 3), np.uint8)


def png(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


ENCODED = [png(array) for array in PIXELS]
LABELS = [0, 1, 2, 0, 1, 2, 0]
STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def reading(base: Path, *shapes: tuple[int, ...], **more: Any) -> Reading:
    return Reading(base, tuple(np.zeros((1, *shape), np.float32) for shape in shapes), **more)


def write(path: Path, images: Any, **more: Any) -> None:
    parquet.write_table(pa.table({"image": images, "label": LABELS[: len(images)], **more}), path)


def own(text: str, how: Reading) -> Any:
    source, place = source_of(text)
    return source.own(place, how)


def both(images: list[bytes | None]) -> list[Any]:
    """A column of bytes, and one as Hugging Face writes it."""
    return [
        pa.array(images, pa.binary()),
        pa.array(images, pa.large_binary()),
        pa.array([{"bytes": image, "path": f"{number}.png"} for number, image in enumerate(images)], STRUCT),
    ]


@pytest.mark.parametrize("column", both(ENCODED), ids=["binary", "large", "hugging face"])
def test_images_are_those_that_pillow_reads(tmp_path: Path, column: Any) -> None:
    write(tmp_path / "t.parquet", column)
    data = own("parquet:t.parquet#image:label", reading(tmp_path, (3, 5, 6)))
    assert data.inputs[0].dtype == np.uint8
    assert data.inputs[0].tobytes() == PIXELS.transpose(0, 3, 1, 2).tobytes()
    assert data.targets.tolist() == LABELS
    assert data.notes == ()


def test_images_beside_numbers_and_parts(tmp_path: Path) -> None:
    part = ["train", "train", "test", "validation", "train", "test", "train"]
    ages = np.arange(7) * 10
    write(tmp_path / "t.parquet", both(ENCODED)[2], age=ages, part=part)
    source, place = source_of("parquet:t.parquet#image,age:label")
    train = source.splits(place, reading(tmp_path, (3, 5, 6), (1,), split_by="part")).train
    found = train.gather(np.arange(4))
    assert found.inputs[0].tobytes() == PIXELS[[0, 1, 4, 6]].transpose(0, 3, 1, 2).tobytes()
    assert found.inputs[1].reshape(-1).tolist() == [0, 10, 40, 60]


@pytest.mark.parametrize("form", [0, 2])
@pytest.mark.parametrize(
    ("image", "why"),
    [(ENCODED[3][:60], "."), (b"hello", "."), (b"", "."), (None, "it is missing")],
    ids=["half", "text", "empty", "missing"],
)
def test_a_broken_image_stops_or_is_skipped(tmp_path: Path, form: int, image: Any, why: str) -> None:
    (tmp_path / "t").mkdir()
    write(tmp_path / "t" / "a.parquet", both(ENCODED[:2])[form])
    column = both([*ENCODED[2:4], image, *ENCODED[5:]])[form]
    if image is None and form:
        column = pa.array([*column.to_pylist()[:2], None, *column.to_pylist()[3:]], STRUCT)
    write(tmp_path / "t" / "b.parquet", column, part=["train", "test", "test", "train", "validation"])
    with pytest.raises(
        ConfigError, match=rf"parquet:t: b.parquet: image in row 2 cannot be read: {why}"
    ) as refused:
        own("parquet:t#image:label", reading(tmp_path, (3, 5, 6)))
    assert refused.value.hint is not None
    assert "data.on_error: skip" in refused.value.hint
    data = own("parquet:t#image:label", reading(tmp_path, (3, 5, 6), on_error="skip"))
    kept = [0, 1, 2, 3, 5, 6]
    assert data.inputs[0].tobytes() == PIXELS[kept].transpose(0, 3, 1, 2).tobytes()
    assert data.targets.tolist() == [*LABELS[:2], *LABELS[:2], *LABELS[3:5]]
    assert (
        data.notes[-1] == "parquet:t: 1 of 7 images cannot be read and are skipped: b.parquet: image in row 2"
    )


def test_every_image_broken(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", pa.array([b"x"] * 7, pa.binary()))
    with pytest.raises(ConfigError, match="none of the 7 images can be read"):
        own("parquet:t.parquet#image:label", reading(tmp_path, (3, 5, 6), on_error="skip"))


def test_an_image_that_is_not_in_the_file(tmp_path: Path) -> None:
    column = pa.array([{"bytes": None, "path": "/etc/passwd"}] * 7, STRUCT)
    write(tmp_path / "t.parquet", column)
    with pytest.raises(ConfigError, match=r"image: row 0 says where an image lies \('/etc/passwd'\)"):
        own("parquet:t.parquet#image:label", reading(tmp_path, (3, 5, 6), on_error="skip"))


def test_sizes_and_colours(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", pa.array([*ENCODED[:6], png(PIXELS[6, ..., 0])]))
    with pytest.raises(ConfigError, match="image in row 0 is 6 × 5, and the course's `input` says 8 × 4"):
        own("parquet:t.parquet#image:label", reading(tmp_path, (3, 4, 8)))
    data = own("parquet:t.parquet#image:label#resize", reading(tmp_path, (3, 4, 8)))
    expected = Image.fromarray(PIXELS[2]).resize((8, 4), Image.Resampling.BILINEAR)
    assert np.array_equal(data.inputs[0][2], np.asarray(expected).transpose(2, 0, 1))
    assert data.notes == (
        "parquet:t.parquet: 7 images: resized",
        "parquet:t.parquet: 1 images: grey read as colour",
    )
    with pytest.raises(ConfigError, match="the course's `input` is 1,8"):
        own("parquet:t.parquet#image:label", reading(tmp_path, (8,)))


def test_columns_that_do_not_fit_images(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", pa.array(ENCODED), age=np.arange(7))
    with pytest.raises(ConfigError, match="image, age are columns of one input, and image holds images"):
        own("parquet:t.parquet#image,age:label", reading(tmp_path, (3, 5, 6)))
    with pytest.raises(ConfigError, match="#resize is for images"):
        own("parquet:t.parquet#age:label#resize", reading(tmp_path, (1,)))
    with pytest.raises(ConfigError, match="image: values of the type binary"):
        own("parquet:t.parquet#age:image", reading(tmp_path, (1,)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"image": ENCODED[:1]}, r"b.parquet has no column 'label', which a.parquet has; it has image"),
        (
            {"image": [[1, 2]], "label": [0]},
            r"b.parquet: image: values of the type list<\w+: int64>, after images",
        ),
        ({"image": ENCODED[:1], "label": [0.5]}, r"b.parquet: label: rows of float32 \[\] from row 0 on"),
    ],
)
def test_files_that_differ(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    (tmp_path / "t").mkdir()
    write(tmp_path / "t" / "a.parquet", pa.array(ENCODED))
    parquet.write_table(pa.table(other), tmp_path / "t" / "b.parquet")
    with pytest.raises(ConfigError, match=message):
        own("parquet:t#image:label", reading(tmp_path, (3, 5, 6)))


def test_many_rows_are_decoded_block_by_block(tmp_path: Path) -> None:
    large = np.zeros((600, 600, 3), np.uint8)
    images = [png(large + number) for number in range(40)]
    table = pa.table({"image": pa.array(images), "label": np.arange(40)})
    parquet.write_table(table, tmp_path / "t.parquet")
    data = own("parquet:t.parquet#image:label", reading(tmp_path, (3, 600, 600)))
    assert data.inputs[0][:, 0, 0, 0].tolist() == [*range(40)]
