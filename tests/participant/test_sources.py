"""A course whose data are files: checked, trained, and held by a silo, with the figures that arrays give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from tests.participant import handed, loaders
from tests.participant.models import build
from xbackend_fl import load_course
from xbackend_fl.errors import ConfigError, RunFailed
from xbackend_fl.events import Event, Noted
from xbackend_fl.federation.silo.silo import Silo
from xbackend_fl.participant import Scope, Worker

ROOM = Path(__file__).parent
COURSE = f"""
name: files
rounds: 2
models: {{torch: "{ROOM}/models.py:build"}}
input: ["1,8"]
data: {{source: "parquet:all.parquet#x:y", split_by: part}}
participants: {{torch: 3}}
training: {{batch_size: 16}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The good data as a table, with text for classes, and as an archive of arrays."""
    parts = loaders.good()
    np.savez(
        tmp_path / "all.npz",
        **{
            f"{name}_{key}": array
            for name, pair in parts.items()
            for key, array in zip("xy", pair, strict=True)
        },
    )
    inputs, targets = (np.concatenate(arrays) for arrays in zip(*parts.values(), strict=True))
    names = np.repeat([*parts], [len(pair[1]) for pair in parts.values()])
    table = {"x": list(inputs), "y": np.array(["ape", "bee", "cat"])[targets], "part": names}
    parquet.write_table(pa.table(table), tmp_path / "all.parquet")
    path = tmp_path / "course.yaml"
    path.write_text(COURSE)
    return path


def test_a_table_trains_to_the_bits_of_arrays(file: Path) -> None:
    def trained(*settings: str) -> bytes:
        worker = Worker(load_course(file, settings), "torch", 1)
        update = worker.train_alone(1, start, "torch-2", {}, {}).update
        return b"".join(array.tobytes() for array in update.model.values())

    start = Worker(load_course(file), "torch", 1).initial()
    assert trained() == trained("data.source=npz:all.npz", "data.split_by=null")
    assert trained() != trained("seed=1")


def test_classes_are_said_and_what_one_has_alone_needs_them_stated(file: Path) -> None:
    notes = Worker(load_course(file), "torch", 1).examine(Scope()).notes
    assert "parquet:all.parquet: y: classes 0 ape, 1 bee, 2 cat, sorted by name" in notes
    mine = (
        'participants=[{name: a, backend: torch, data: "parquet:all.parquet#x:y"}, {name: b, backend: torch}]'
    )
    with pytest.raises(ConfigError, match=r"participant 'a': parquet:all.parquet: y: the classes are text"):
        Worker(load_course(file, [mine]), "torch", 1)
    stated = load_course(file, [mine, "data.classes=[cat, bee, ape]"])
    assert Worker(stated, "torch", 1).num_examples() == {"a": 72, "b": 48}


def test_a_silo_s_data_path_is_any_source(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "all.parquet").rename(tmp_path / "elsewhere/mine.parquet")
    said: list[Event] = []
    course = load_course(file, ["data.classes=[ape, bee, cat]"])
    Silo.from_course(course, "torch-1", "parquet:elsewhere/mine.parquet#x:y", observer=said.append)
    assert any("as data.classes says" in event.note for event in said if isinstance(event, Noted))
    Silo.from_course(course, "torch-1", f"{ROOM}/loaders.py:good")
    with pytest.raises(ConfigError, match="the classes are text"):
        Silo.from_course(load_course(file), "torch-1", "parquet:elsewhere/mine.parquet#x:y")


BOTH = f'models={{torch: "{ROOM}/models.py:build", tensorflow: "{ROOM}/models.py:keras_model"}}'
NOISY = f"data.transform={ROOM}/transforms.py:noisy"


def test_augmentation_is_the_same_on_both_backends(file: Path) -> None:
    """The backends train as closely with random numbers in the data as they do without."""

    def worker(backend: str, *settings: str) -> Worker:
        other = {"torch": "tensorflow", "tensorflow": "torch"}[backend]
        who = f"participants=[{{name: a, backend: {backend}}}, {{name: b, backend: {other}}}]"
        return Worker(load_course(file, [BOTH, who, *settings]), backend, 1)

    torch, keras, plain = worker("torch", NOISY), worker("tensorflow", NOISY), worker("torch")
    schema, evidence = torch.evidence()
    for one in (torch, keras, plain):
        one.bind(schema, evidence)
    start = torch.initial()
    first, second, still = (
        one.train_alone(1, start, "a", {}, {}).update.model for one in (torch, keras, plain)
    )
    assert max(np.abs(first[name] - second[name]).max() for name in first) < 1e-6
    assert max(np.abs(first[name] - still[name]).max() for name in first) > 1e-4
    assert torch.evaluate(start, "test") == plain.evaluate(start, "test")


def test_a_wrong_transform_is_refused_before_the_course(file: Path) -> None:
    longer = load_course(file, [f"data.transform={ROOM}/transforms.py:longer"])
    with pytest.raises(ConfigError, match=r"data.transform .*longer: returned inputs of float32"):
        Worker(longer, "torch", 1).examine(Scope(thorough=True)).raise_any()
    raises = load_course(file, [f"data.evaluation_transform={ROOM}/transforms.py:raises"])
    with pytest.raises(ConfigError, match=r"data.evaluation_transform .*KeyError"):
        Worker(raises, "torch", 1).examine(Scope()).raise_any()


def test_a_data_set_of_a_framework_trains_to_the_bits_of_arrays(file: Path) -> None:
    """Examples by number have the core's batches; a loader has its own, which a model fitted by hand to them has too."""

    def trained(name: str, *settings: str) -> dict[str, np.ndarray]:
        own = f'participants=[{{name: a, backend: torch, data: "{ROOM}/handed.py:{name}"}}, {{name: b, backend: torch}}]'
        worker = Worker(load_course(file, [own, *settings]), "torch", 1)
        worker.examine(Scope(thorough=True)).raise_any()
        return dict(worker.train_alone(1, start, "a", {}, {}).update.model)

    start = Worker(load_course(file), "torch", 1).initial()
    expected = trained("arrays")
    for name in ("items", "hugging_face"):
        found = trained(name)
        assert all(np.array_equal(array, found[key]) for key, array in expected.items())
    whole = ("training.batch_size=12", "training.optimizer={name: sgd, lr: 0.1}")
    model = torch_model(start)
    for inputs, targets in handed.loader():
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        for parameter in model.parameters():
            parameter.data -= 0.1 * parameter.grad
    weights = trained("loader", *whole).values()
    for array, parameter in zip(weights, model.parameters(), strict=True):
        np.testing.assert_allclose(array, parameter.detach().numpy(), atol=1e-6)
    streamed = Worker(load_course(file, [f"data.source={ROOM}/handed.py:evaluated"]), "torch", 1)
    streamed.examine(Scope(thorough=True)).raise_any()
    figures = Worker(load_course(file), "torch", 1).evaluate_common(start, "validation").figures
    assert streamed.evaluate_common(start, "validation").figures == pytest.approx(figures)
    with pytest.raises(ConfigError, match="cannot be shared out"):
        Worker(load_course(file, [f"data.source={ROOM}/handed.py:every_split"]), "torch", 1)


def test_what_breaks_is_said_with_whose_it_is(file: Path) -> None:
    def worker(name: str) -> Worker:
        own = f'participants=[{{name: a, backend: torch, data: "{ROOM}/handed.py:{name}"}}, {{name: b, backend: torch}}]'
        return Worker(load_course(file, [own]), "torch", 1)

    shrinking = worker("shrinking")
    start = shrinking.initial()
    shrinking.train_alone(1, start, "a", {}, {})
    message = r"while training participant 'a' \(torch\) in round 2: .* ended after 20"
    with pytest.raises(RunFailed, match=message):
        shrinking.train_alone(2, start, "a", {}, {})
    with pytest.raises(
        ConfigError, match=r"participant 'a': .*:damaged: inputs: row 40 cannot be read: OSError"
    ):
        worker("damaged").examine(Scope()).raise_any()


BROKEN = {
    "gone": "cannot be read: OSError: the disk is gone",
    "early": "is not there: the data set said that it has 48, and ends early",
    "target": r"had the target \d and now has \d",
    "dtype": r"has inputs of float64 \[8\]",
    "shape": r"has inputs of float32 \[3\]",
    "nan": "has NaN or infinity in its inputs, and none had when the data set was opened",
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_example_that_breaks_later_is_said_with_participant_and_round(file: Path, what: str) -> None:
    """Whatever ``data.on_error`` is, it ends the run, or costs the participant its update; before any round it is said whose it is."""

    def worker(rounds: int, *settings: str) -> Worker:
        loader = file.with_name(f"after_{rounds}.py")
        loader.write_text(
            f"from tests.participant import handed\ndef load(): return handed.failing({what!r}, {rounds})\n"
        )
        who = f"participants=[{{name: a, backend: torch, data: 'after_{rounds}.py:load'}}, {{name: b, backend: torch}}]"
        return Worker(load_course(file, [who, *settings]), "torch", 1)

    message = (
        rf"while training participant 'a' \(torch\) in round 2: after_1.py:load: example 13 {BROKEN[what]}"
    )
    for settings in ((), ("data.on_error=skip",)):
        late = worker(1, *settings)
        late.train_alone(1, late.initial(), "a", {}, {})
        with pytest.raises(RunFailed, match=message) as caught:
            late.train_alone(2, late.initial(), "a", {}, {})
        assert "which counts what it leaves out" not in str(caught.value.hint)
    late = worker(1, "federate.on_failure=continue")
    assert not late.train_round(1, late.initial(), ["a", "b"], {}).failed
    assert [*late.train_round(2, late.initial(), ["a", "b"], {}).failed] == ["a"]
    with pytest.raises(ConfigError, match=rf"^participant 'a': after_0.py:load: example 13 {BROKEN[what]}"):
        worker(0).examine(Scope()).raise_any()


def test_an_image_that_cannot_be_read_is_the_only_mistake(file: Path) -> None:
    """Nothing is known of the inputs then, and so nothing is said of what scales them."""
    for kind in ("cat", "dog"):
        for number in range(4):
            path = file.parent / "zoo" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (5, 6)).save(path)
    path.write_bytes(b"no image")
    settings = (
        "data={source: 'images:zoo', scale: {}}",
        "input=['1,3,6,5']",
        f"models.torch={ROOM}/models.py:image",
    )
    with pytest.raises(ConfigError) as caught:
        Worker(load_course(file, settings), "torch", 1)
    assert "dog/3.png (image 7) cannot be read" in caught.value.message
    assert "data.scale" not in str(caught.value)


def test_wrong_targets_are_said_once_by_all_backends(file: Path) -> None:
    """Who does not look at the common data says of them what the one says who does."""
    worker = Worker(load_course(file, [f"data.source={ROOM}/handed.py:of_two"]), "torch", 1)
    first, second = (worker.examine(Scope(common=common)).refused for common in (True, False))
    assert [error.message for error in first] == [error.message for error in second]
    assert len(first) == 1


def torch_model(weights: Mapping[str, np.ndarray]) -> torch.nn.Module:
    model = build()
    for parameter, array in zip(model.parameters(), weights.values(), strict=True):
        parameter.data = torch.from_numpy(array.copy())
    return model
