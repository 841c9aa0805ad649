"""Targets of several outputs: every source gives those that NumPy or pandas reads, and what is missing is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from xbackend_fl.data import Dataset, Reading, content, dataset_of, digest, extreme_rows, generator, source_of
from xbackend_fl.data.dataset import Examples
from xbackend_fl.data.transform import Transform
from xbackend_fl.errors import ConfigError
from xbackend_fl.losses import parts_of

pytestmark = pytest.mark.quick
HEADS = ("organ", "age")
X = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
ORGAN = np.arange(12) % 4
AGE = np.random.default_rng(1).standard_normal((12, 2)).astype(np.float32)


def how(base: Path = Path(), **more: Any) -> Reading:
    return Reading(base, (np.zeros((1, 3), np.float32),), **({"heads": HEADS} | more))


def is_whole(data: Dataset) -> bool:
    assert data.targets.dtype.names == HEADS
    return np.array_equal(data.targets["organ"], ORGAN) and np.array_equal(data.targets["age"], AGE)


@pytest.mark.parametrize(
    "targets",
    [
        {"age": AGE, "organ": ORGAN},
        (ORGAN, AGE),
        [ORGAN, AGE],
        {"organ": ORGAN.tolist(), "age": AGE.tolist()},
        {"organ": pd.Series(ORGAN), "age": AGE},
        np.array([*zip(ORGAN, AGE, strict=True)], [("organ", "i8"), ("age", "f4", 2)]),
    ],
    ids=["dict", "tuple", "list", "lists", "series", "structured"],
)
def test_arrays_in_any_form(targets: Any) -> None:
    data = dataset_of("data", (X, targets), how())
    assert is_whole(data)
    rows = np.array([4, 1])
    assert np.array_equal(data.subset(rows).gather(np.array([1])).targets["age"], AGE[[1]])
    assert np.array_equal(data.subset(rows).labels["organ"], ORGAN[rows])


def test_a_data_frame_has_its_columns_and_what_no_loss_reads_is_said() -> None:
    frame = pd.DataFrame({"organ": ORGAN, "age": AGE[:, 0], "weight": AGE[:, 1]})
    data = dataset_of("data", (X, frame), how())
    assert np.array_equal(data.targets["age"], AGE[:, 0])
    assert "data: targets: weight is read by no loss" in data.notes


def test_one_head_takes_an_array_or_a_dict() -> None:
    for value in (ORGAN, {"organ": ORGAN}):
        data = dataset_of("data", (X, value), how(heads=("organ",)))
        assert np.array_equal(data.targets["organ"], ORGAN)


@pytest.mark.parametrize(
    ("targets", "heads", "words"),
    [
        (ORGAN, HEADS, "data: targets: one ndarray, and training.outputs reads organ, age"),
        ({"organ": ORGAN}, HEADS, "nothing for age, which training.outputs names; there is organ"),
        ((ORGAN, AGE, AGE), HEADS, "one tuple, and training.outputs reads organ, age"),
        ({"organ": ORGAN, "age": AGE[:-1]}, HEADS, "12 in inputs, 12 in targets: organ, 11 in targets: age"),
        ({"organ": ORGAN, "age": ["a"] * 12}, HEADS, "data: targets: age: text"),
        ({"organ": ORGAN, "age": AGE}, (), "a dict with the keys organ, age, and training.loss reads one array"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_refused(targets: Any, heads: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dataset_of("data", (X, targets), how(heads=heads))
    assert words in caught.value.message


def test_archives(tmp_path: Path) -> None:
    arrays = {f"{part}_{key}": a for part in ("train", "validation", "test") for key, a in
              (("x", X), ("y_organ", ORGAN), ("y_age", AGE))}  # fmt: skip
    np.savez(tmp_path / "all.npz", **arrays)
    np.savez(tmp_path / "own.npz", x=X, y_organ=ORGAN, y_age=AGE)
    np.savez(tmp_path / "one.npz", x=X, y=ORGAN)
    source, _ = source_of("npz:all.npz")
    assert is_whole(source.splits("all.npz", how(tmp_path)).test)
    assert is_whole(source.own("own.npz", how(tmp_path)))
    with pytest.raises(ConfigError, match="has no x or no y_organ") as caught:
        source.own("one.npz", how(tmp_path))
    assert "y_organ=targets, y_age=targets" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    "columns", ["*:organ,age=years", "a,b,c: age = years , organ", "*:organ=tissue,age=years"]
)
def test_tables(kind: str, columns: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    names = np.array(["liver", "heart", "lung", "skin"])[ORGAN]
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "years": AGE[:, 0]})
    label = "tissue" if "tissue" in columns else "organ"
    frame[label] = names
    if kind == "csv":
        frame.to_csv(tmp_path / "t.csv", index=False)
    else:
        frame.to_parquet(tmp_path / "t.parquet")
    source, place = source_of(f"{kind}:t.{kind}#{columns}")
    data = source.own(place, how(tmp_path))
    assert np.allclose(data.inputs[0][:], X)
    assert np.array_equal(data.targets["age"], AGE[:, 0])
    assert np.array_equal(np.unique(names)[data.targets["organ"]], names)
    assert any(f"{label}: classes 0 heart, 1 liver, 2 lung, 3 skin" in note for note in data.notes)
    with pytest.raises(ConfigError, match=r"the targets are years, and training\.outputs reads organ, age"):
        source.own(f"t.{kind}#*:years", how(tmp_path))
    with pytest.raises(ConfigError, match="no column 'yeahrs'") as caught:
        source.own(
            f"t.{kind}#*:{label}=organ,age=yeahrs".replace(f"{label}=organ", f"organ={label}"), how(tmp_path)
        )
    assert "years" in str(caught.value.hint)


def test_folders_of_images_have_one_target(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for label in ("cat", "dog"):
        (tmp_path / "all" / label).mkdir(parents=True)
        for number in range(5):
            image.new("L", (4, 4)).save(tmp_path / "all" / label / f"{number}.png")
    source, place = source_of("images:all")
    pictures = (np.zeros((1, 1, 4, 4), np.float32),)
    one = source.own(place, Reading(tmp_path, pictures, heads=("kind",)))
    assert one.targets["kind"].tolist() == [0] * 5 + [1] * 5
    with pytest.raises(ConfigError, match="one target for every example") as caught:
        source.own(place, Reading(tmp_path, pictures, heads=("kind", "age")))
    assert "parquet:FILE#INPUT:kind,age; or data.py:load" in str(caught.value.hint)


PICTURES = """
import numpy as np
from pathlib import Path
from PIL import Image

class Pictures:
    def __init__(self, folder):
        self.files = sorted(Path(folder).glob("*/*.png"))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        path = self.files[index]
        kind = ["cat", "dog"].index(path.parent.name)
        return np.asarray(Image.open(path), np.float32)[None], {"kind": kind, "age": np.float32(path.stem)}

def load():
    return Pictures("all")
"""


@pytest.mark.parametrize("cure", ["t.parquet#picture:kind,age", "t.py:load"])
def test_the_cures_of_images_with_several_targets(
    cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pytest.importorskip("PIL.Image")
    rows = []
    for kind, label in enumerate(("cat", "dog")):
        (tmp_path / "all" / label).mkdir(parents=True)
        for number in range(5):
            path = tmp_path / "all" / label / f"{number}.png"
            image.new("L", (4, 4), 10 * kind + number).save(path)
            rows.append({"picture": path.read_bytes(), "kind": kind, "age": float(number)})
    pd.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.py").write_text(PICTURES)
    monkeypatch.chdir(tmp_path)
    source, place = source_of(f"parquet:{cure}" if "#" in cure else cure)
    pictures = (np.zeros((1, 1, 4, 4), np.float32),)
    data = source.own(place, Reading(tmp_path, pictures, heads=("kind", "age")))
    found = data.gather(np.arange(10))
    assert found.inputs[0][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert found.targets["kind"].tolist() == [0] * 5 + [1] * 5
    assert found.targets["age"].reshape(-1).tolist() == [0, 1, 2, 3, 4] * 2


def test_other_targets_have_another_digest() -> None:
    data = dataset_of("data", (X, {"organ": ORGAN, "age": AGE}), how())
    renamed = data.targets.astype([("organ", "i8"), ("years", "f4", 2)])
    changed = data.targets.copy()
    changed["age"][3] += 1
    for look in (content, lambda array: digest([array])):
        assert len({look(a) for a in (data.targets, renamed, changed)}) == 3
        assert look(data.targets) == look(data.targets.copy())
    assert {int(AGE[:, 0].argmax()), int(AGE.min(1).argmin())} & {*extreme_rows(data).tolist()}


def test_a_transform_gets_copies_by_name(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(
        "def noise(x, y, rng):\n    y['age'] += rng.random(y['age'].shape)\n    return x, y\n"
    )
    data = dataset_of("data", (X, {"organ": ORGAN, "age": AGE}), how())
    found = Transform("data.transform", "t.py:noise", tmp_path, 5)(Examples((X,), data.targets), 1)
    drawn = generator(5, "transform", 1).random(AGE.shape)
    assert np.array_equal(parts_of(found.targets)["age"], (AGE + drawn).astype(np.float32))
    assert is_whole(data)
