"""LEAF's format: read as written, cached, and loud about what is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xbackend_fl.data import read_leaf, split_users
from xbackend_fl.data.femnist_like import DEVIATION, MEAN_EXAMPLES, write_femnist_like
from xbackend_fl.data.leaf_tasks import LETTERS
from xbackend_fl.errors import ConfigError


def leaf(
    folder: Path, users: dict[str, tuple[list[Any], list[Any]]], changed: dict[str, Any] | None = None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "users": list(users),
        "num_samples": [len(y) for _, y in users.values()],
        "user_data": {name: {"x": x, "y": y} for name, (x, y) in users.items()},
    }
    (folder / "all_data_0.json").write_text(json.dumps(content | (changed or {})))
    return folder


def image(value: int) -> list[float]:
    return [value / 255] * 783 + [1.0]


def test_femnist_keeps_every_pixel(tmp_path: Path) -> None:
    users = {"a": ([image(v) for v in range(5)], [0, 1, 2, 3, 61]), "b": ([image(200)], [7])}
    found = read_leaf(leaf(tmp_path, users))
    assert found.inputs.shape == (6, 1, 28, 28)
    assert found.inputs.dtype == np.uint8
    assert found.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 200]
    assert found.inputs[0, 0, 27, 27] == 255
    assert found.targets.tolist() == [0, 1, 2, 3, 61, 7]
    assert [(name, list(rows)) for name, rows in found.ranges()] == [("a", [0, 1, 2, 3, 4]), ("b", [5])]


def test_the_second_reading_is_from_the_cache(tmp_path: Path) -> None:
    folder = leaf(tmp_path, {"a": ([image(1)], [0])})
    said: list[tuple[int, int]] = []
    read_leaf(folder, on_progress=lambda done, total: said.append((done, total)))
    assert said
    again = read_leaf(folder, on_progress=lambda *_: pytest.fail("it was read again"))
    assert isinstance(again.inputs, np.memmap)
    leaf(tmp_path, {"a": ([image(1), image(2)], [0, 1])})
    assert len(read_leaf(folder).targets) == 2, "a changed file is read anew"


def test_duplicates_of_a_user_can_be_dropped(tmp_path: Path) -> None:
    users = {"a": ([image(1), image(2), image(1)], [0, 0, 0]), "b": ([image(1)], [0])}
    folder = leaf(tmp_path, users)
    assert len(read_leaf(folder).targets) == 4
    kept = read_leaf(folder, deduplicate=True)
    assert kept.inputs[:, 0, 0, 0].tolist() == [1, 2, 1]


def test_the_other_tasks(tmp_path: Path) -> None:
    text = "a" * 79 + "b"
    found = read_leaf(leaf(tmp_path / "s", {"romeo": ([text, "€" * 80], ["c", "d"])}))
    assert found.inputs[0, -1] == LETTERS.index("b")
    assert found.inputs[1].tolist() == [1] * 80
    assert found.targets.tolist() == [LETTERS.index("c"), LETTERS.index("d")]
    found = read_leaf(leaf(tmp_path / "t", {"x": ([["1", "date", "q", "x", "héllo"]], [1])}))
    assert bytes(found.inputs[0].astype(np.uint8)).rstrip(b"\0").decode() == "héllo"
    found = read_leaf(leaf(tmp_path / "v", {"x": ([[0.5, -1.25]], [3])}))
    assert found.inputs.dtype == np.float32
    assert found.inputs.tolist() == [[0.5, -1.25]]
    words = [["<PAD>", "the", "cat"], ["cat", "sat", "down"]]
    target = {"target_tokens": [["the", "cat", "sat"], ["sat", "down", "now"]], "subreddit": "x"}
    found = read_leaf(leaf(tmp_path / "r", {"x": ([words], [target])}))
    assert found.inputs.shape == (2, 3)
    assert found.inputs[0, 0] == 0
    assert found.inputs[0, 2] == found.inputs[1, 0]
    assert found.targets[0] == found.inputs[1, 1]


def test_celeba_reads_its_images(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    raw = tmp_path / "raw/img_align_celeba"
    raw.mkdir(parents=True)
    image_module.new("RGB", (178, 218), (10, 20, 30)).save(raw / "1.png")
    found = read_leaf(leaf(tmp_path / "all_data", {"7": (["1.png"], [1])}))
    assert found.inputs.shape == (1, 3, 84, 84)
    assert found.inputs[0, :, 5, 5].tolist() == [10, 20, 30]
    with pytest.raises(ConfigError, match=r"user '7': the image .*2\.png is missing"):
        read_leaf(leaf(tmp_path / "all_data", {"7": (["2.png"], [1])}))


GOOD = {"a": ([image(1), image(2)], [0, 1])}


@pytest.mark.parametrize(
    ("users", "changed", "words"),
    [
        ({"a": ([image(1)], [0, 1])}, {}, "user 'a': x has 1 examples and y 2"),
        ({"a": ([image(1), [1.0]], [0, 1])}, {}, r"user 'a': x\[1\] has 1 numbers, expected 784"),
        ({"a": ([image(1)], [62])}, {}, "user 'a': y holds the label 62, expected 0 to 61"),
        ({"a": ([image(1)], [-1])}, {}, "user 'a': y holds the label -1"),
        ({"a": ([image(1)], [0.5])}, {}, "user 'a': y is not a list of class indices"),
        ({"a": ([[2.0] * 784], [0])}, {}, "user 'a': x holds the pixel 2, expected 0 to 1"),
        ({"a": ([{}], [0])}, {}, "user 'a': x is no example of a LEAF data set"),
        (GOOD, {"num_samples": [3]}, "user 'a': num_samples is not 2"),
        (GOOD, {"num_samples": []}, "users has 1 names and num_samples 0 numbers"),
        (GOOD, {"users": ["a", "b"], "num_samples": [2, 1]}, "user 'b' is listed in users and missing"),
        (GOOD, {"user_data": {"a": {"x": []}}}, "user 'a' has no list 'y'"),
        (GOOD, {"user_data": {}}, "no user_data"),
    ],
)
def test_broken_files_are_named(users: Any, changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read_leaf(leaf(tmp_path, users, changed))
    assert "all_data_0.json" in str(caught.value)


def test_a_file_cut_short(tmp_path: Path) -> None:
    path = leaf(tmp_path, GOOD) / "all_data_0.json"
    whole = path.read_text()
    for part in (10, len(whole) // 2, len(whole) - 1):
        path.write_text(whole[:part])
        with pytest.raises(ConfigError, match=r"all_data_0\.json is cut short or is no JSON"):
            read_leaf(tmp_path)
    with pytest.raises(ConfigError, match="holds no LEAF file"):
        read_leaf(tmp_path / "nowhere")
    path.write_text(json.dumps({"users": ["a", "a"], "num_samples": [1, 1], "user_data": {}}))
    with pytest.raises(ConfigError, match="no user_data"):
        read_leaf(tmp_path)


def test_every_user_is_split(tmp_path: Path) -> None:
    users = {str(n): ([image(n)] * n, [n] * n) for n in range(1, 12)}
    found = read_leaf(leaf(tmp_path, users))
    splits = split_users(found, (0.6, 0.2, 0.2), 3)
    assert splits.owners is not None
    rows = [split.rows for split in (splits.train, splits.validation, splits.test)]
    joined = np.concatenate([r for r in rows if r is not None])
    assert sorted(joined.tolist()) == list(range(len(found.targets)))
    assert len(splits.train) == len(splits.owners)
    assert np.unique(splits.owners).tolist() == list(range(11))
    assert (splits.train.labels == splits.owners + 1).all()
    assert abs(len(splits.train) / len(found.targets) - 0.6) < 0.05
    again = split_users(found, (0.6, 0.2, 0.2), 3)
    np.testing.assert_array_equal(splits.train.rows, again.train.rows)


@pytest.mark.slow
def test_the_synthetic_femnist_has_the_published_statistics(tmp_path: Path) -> None:
    files = write_femnist_like(tmp_path / "data", 101, seed=4)
    assert [file.name for file in files] == ["all_data_0.json", "all_data_1.json"]
    users = read_leaf(tmp_path / "data")
    sizes = np.diff(users.ends, prepend=0)
    assert len(users.names) == 101
    # Three standard errors of a sample of 101 writers.
    assert abs(sizes.mean() - MEAN_EXAMPLES) < 3 * DEVIATION / np.sqrt(101)
    assert abs(sizes.std() - DEVIATION) < 0.25 * DEVIATION
    assert 0.45 < (users.targets < 10).mean() < 0.55
    assert len(np.unique(users.targets)) == 62
    assert 0.7 < users.inputs.mean() / 255 < 0.98, "black on white"
    with pytest.raises(ConfigError, match="is not empty"):
        write_femnist_like(tmp_path / "data", 3)
