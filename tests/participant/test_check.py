"""What ``xbfl check`` lets pass, ``xbfl run`` can train; what it refuses, it refuses in words and with a place."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.participant import bad_loaders, loaders
from tests.participant.models import heads
from xbackend_fl import load_course, run_course
from xbackend_fl.cli.main import main
from xbackend_fl.data import Dataset, Splits
from xbackend_fl.errors import CombinedError, ConfigError, Refusals
from xbackend_fl.events import Event, Noted
from xbackend_fl.federation.silo.silo import Silo
from xbackend_fl.participant import OwnSplits, Scope, Worker

ROOM = Path(__file__).parent
COURSE = f"""
name: small
rounds: 1
models: {{torch: "{ROOM}/models.py:build"}}
input: ["1,8"]
data: {{source: "{ROOM}/loaders.py:good"}}
participants: {{torch: 3}}
training: {{batch_size: 16}}
"""
BOTH = f'models={{torch: "{ROOM}/models.py:normalised", tensorflow: "{ROOM}/models.py:keras_normalised"}}'
KERAS = f'models={{tensorflow: "{ROOM}/models.py:keras_normalised"}}'
WORDS = (f"models.torch={ROOM}/models.py:words", 'input=["int64:1,5"]')
IMAGE = (f"models.torch={ROOM}/models.py:image", 'input=["1,3,6,5"]')

Check = Callable[..., tuple[int, str]]


def source(name: str) -> str:
    """A loader, of whichever file has it."""
    file = "loaders" if hasattr(loaders, name) else "bad_loaders"
    return f"{ROOM}/{file}.py:{name}"


def data(name: str) -> str:
    return f"data.source={source(name)}"


def model(name: str) -> str:
    return f"models.torch={ROOM}/models.py:{name}"


def own(*names: str) -> str:
    listed = ", ".join(
        f'{{name: p{index}, backend: torch, data: "{source(name)}"}}' for index, name in enumerate(names)
    )
    return f"participants=[{listed}, {{name: other, backend: torch}}]"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "course.yaml"
    path.write_text(COURSE)
    return path


@pytest.fixture
def check(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """The command as users type it, in this process: exit code and what it says."""

    def run(*settings: str) -> tuple[int, str]:
        options = [word for setting in settings for word in ("--set", setting)]
        monkeypatch.setattr(sys, "argv", ["xbfl", "check", str(file), "--in-process", *options])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out if not ended.value.code else said.err

    return run


BAD = {
    # The whole data set, by name of the loader.
    "nan_in_train": "train: inputs: NaN at row 5, column 3 (1 value in 1 row)",
    "nan_in_validation": "validation: inputs: NaN at row 7, column 2",
    "infinity_in_test": "test: inputs: infinity at row 11, column 0",
    "one_hot": "class indices, not one-hot rows",
    "one_hot_in_test": "test: targets:",
    "text_labels": "train: targets: text, such as 'owl'",
    "bytes_labels": "targets: text, such as b'owl'",
    "object_labels": "missing values (None), 14 in all, the first in row 0",
    "label_too_large": "row 4",
    "negative_label": "row 2",
    "counted_from_one": "counted from 0",
    "fractions_as_labels": "row 1",
    "nan_labels": "train: targets: NaN at row 9",
    "wider_validation": "validation: inputs: examples of shape [16], but the course's `input` says [8]",
    "narrower_train": "input: ['1,7']",
    "one_axis": "examples of shape []",
    "a_single_number": "a single value",
    "doubles": "384 of 384 values, as 0.09034702181916102 at row 0, column 0",
    "huge_doubles": "1 of 96 values, as 1e+300 at row 3, column 1",
    "huge_integers": "int64 values that float32, which the model computes with, cannot hold",
    "complex_inputs": "complex numbers",
    "dates": "datetime64[s] values",
    "objects": "with a dict among them",
    "missing_values": "missing values (None), 1 in all, the first in row 6",
    "ragged": "rows have between 3 and 4 values",
    "ragged_arrays": "different shapes, [3] and [4]",
    "structured": "the fields height, width",
    "masked": "masked values, 40 in all, the first in row 0",
    "sparse": "hand over .toarray()",
    "text_inputs": "inputs: text",
    "empty_test": "test: no examples",
    "shorter_targets": "48 in inputs, 47 in targets",
    "no_test": "must return a dict",
    "keras_pairs": "received tuple",
    "nothing": "end the function with return",
    "generator": "received generator",
    "inputs_alone": "expected (inputs, targets)",
    "lists_of_pairs": "received a list of 2",
    "inputs_by_name": "a dict with the keys features",
    "two_inputs": "2 inputs, but the course's `input` names 1",
    "a_path": "a str is no array",
    "raises": "OSError",
    "raises_in_a_library": "JSONDecodeError",
    "leaves": "SystemExit",
    "wants_an_argument": "'folder'",
    "other_data_each_time": "returned other data when it was called again",
    "asynchronous": "is an async function",
    "A_CONSTANT": "is a int, which cannot be called",
    "beyond_64_bits": "more than 64 bits",
    "owners_too_few": "owners has 3 entries for 48",
    "owners_of_two_axes": "owners is an array of int64 with 2 axes",
}


@pytest.mark.one_in(6)
@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_refused_with_a_place(check: Check, name: str) -> None:
    code, said = check(data(name))
    assert code == 2, said
    first, *_ = said.splitlines()
    assert first.startswith("error[config]: ")
    assert "loaders.py" in first
    assert name in first
    assert BAD[name] in said
    assert "Traceback" not in said


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "name", ["label_too_large", "negative_label", "nan_labels", "nan_in_train", "infinity_in_test", "one_hot"]
)
def test_several_backends_say_one_cause_once(check: Check, name: str) -> None:
    code, said = check(data(name), BOTH, "participants={torch: 2, tensorflow: 1}")
    assert code == 2, said
    assert said.count("error[") == 1, said
    assert BAD[name] in said
    assert "raised" not in said


@pytest.mark.parametrize("name", ["raises", "raises_in_a_library", "leaves", "wants_an_argument"])
def test_an_exception_is_located_in_the_users_own_file(check: Check, name: str) -> None:
    _, said = check(data(name))
    lines = (ROOM / "bad_loaders.py").read_text().splitlines()
    shown = lines[int(said.split("loaders.py:")[2].split(")")[0]) - 1]
    assert shown.startswith(("    raise", "    return json", "    sys.exit", "def wants_an_argument"))


OTHERS = {
    "a Keras model under torch": ([model("keras_model")], "is a model of 'tensorflow' and not of 'torch'"),
    "a PyTorch model under tensorflow": (
        [f'models={{tensorflow: "{ROOM}/models.py:build"}}', "participants={tensorflow: 1}"],
        "is a model of 'torch' and not of 'tensorflow'",
    ),
    "the class of a model": ([model("the_class")], "returned the class Words itself"),
    "weights for a model": ([model("weights")], "such as weights are kept in"),
    "no model": ([model("nothing")], "returned nothing (None)"),
    "a model and its optimizer": ([model("a_pair")], "returned a tuple"),
    "a model that cannot be built": ([model("raises")], "models.py:"),
    "a model of another width": ([model("nine_inputs")], "[2, 8]"),
    "a model that ends in the loss's softmax": ([model("ends_in_softmax")], "works on logits"),
    "a model that cannot train": ([model("fails_in_training")], "no training today"),
    "a model that answers NaN": ([model("answers_nan")], "answers with NaN or infinity before any training"),
    "a model that holds NaN": ([model("holds_nan")], "'0.weight' of the torch model holds nan at [0, 0]"),
    "one output for classes": ([model("one_output")], "binary_cross_entropy"),
    "a word beyond the table": ([*WORDS, data("word_beyond_the_table")], "20 at row 40, column 2"),
    "fractions where indices are looked up": ([*WORDS, data("word_fractions")], "cannot hold"),
    "channels last": ([*IMAGE, data("channels_last")], "x.transpose(0, 3, 1, 2)"),
    "flat images": ([*IMAGE, data("flattened")], "x.reshape(-1, 3, 6, 5)"),
    "scaled bytes beside floats": (
        [*IMAGE, data("floats_beside_bytes"), "data.scale={}"],
        "validation: inputs are float32",
    ),
    "a scale for nothing": (["data.scale={}"], "no input is uint8"),
    "classes for yes or no": (["training.loss=binary_cross_entropy"], "train"),
    "signs for yes or no": ([data("signs"), "training.loss=binary_cross_entropy"], "row 0"),
    "quantities of another width": ([data("quantities_of_two"), "training.loss=mean_squared_error"], "2"),
    "quantities that are no float32": (
        [data("double_quantities"), "training.loss=mean_squared_error"],
        "targets: float64 values that float32",
    ),
    "quantities whose squares are no floats": (
        [data("far_quantities"), "training.loss=mean_squared_error"],
        "square float32 has",
    ),
    "counts below zero": ([data("quantities"), "training.loss=poisson"], "is not a number from 0 to"),
    "weights for other classes": (
        ["training.loss={name: cross_entropy, class_weights: [1, 2]}"],
        "class_weights has 2",
    ),
    "a share of one example under batch normalisation": (
        [model("normalised"), data("one_example_too_many")],
        "training.batch_size: 17",
    ),
    "the same in Keras, which says nothing": (
        [KERAS, "participants={tensorflow: 3}", data("one_example_too_many")],
        "training.batch_size: 17",
    ),
    "shares by class without classes": (
        [data("yes_or_no"), "training.loss=binary_cross_entropy", "data.partition={kind: dirichlet}"],
        "shares examples out by their class",
    ),
    "own data in two ways wrong": ([own("inputs_alone", "raises")], "2 errors; nothing was run."),
    "own data of another width": ([own("own_wider")], "participant 'p0'"),
    "own data with NaN": ([own("own_nan")], "loaders.py:own_nan: inputs: NaN at row 1, column 1"),
    "own data one-hot": ([own("own_one_hot")], "argmax"),
    "own data that change": (
        [own("own_other_each_time")],
        "own_other_each_time (participant 'p0') returned other",
    ),
    "own data, targets first": ([own("own_swapped")], "return inputs, targets, in this order"),
    "own doubles": ([own("own_doubles")], "cannot hold"),
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", OTHERS)
def test_what_does_not_fit_is_refused(check: Check, name: str) -> None:
    settings, words = OTHERS[name]
    code, said = check(*settings)
    assert code == 2, said
    assert words in said
    assert "Traceback" not in said


def test_all_mistakes_are_said_at_once(check: Check) -> None:
    """Data, model and own data; each once."""
    code, said = check(data("nan_in_train"), model("nothing"), own("own_nan", "own_one_hot", "inputs_alone"))
    assert code == 2
    assert "3 errors; nothing was run." in said
    assert said.count("error[config]") == 3
    assert "train: inputs: NaN at row 5, column 3 (1 value in 1 row) (likewise: participant 'p0'" in said


GOOD: dict[str, list[str]] = {
    name: [data(name)]
    for name in (
        "plain_lists",
        "torch_tensors",
        "list_of_tensors",
        "bfloat16_tensors",
        "frames",
        "exact_doubles",
        "long_doubles",
        "mapped_files",
        "labels_of_two_axes",
        "halves",
        "small_integers",
        "bools",
        "other_byte_order",
        "backwards",
        "columns_first",
        "broadcast",
        "read_only",
        "nothing_masked",
        "float_labels",
        "unsigned_labels",
        "objects_of_numbers",
    )
} | {
    "words": [*WORDS, data("word_indices")],
    "floats for words": [*WORDS, data("word_floats")],
    "bytes without a scale": [*IMAGE, data("pixels")],
    "bytes with a scale": [*IMAGE, data("pixels"), "data.scale={}"],
    "yes or no": [data("yes_or_no"), "training.loss=binary_cross_entropy"],
    "quantities": [data("quantities"), "training.loss=mean_squared_error"],
    "own data": [own("own", "own")],
    "one example too many, and nothing is normalised": [data("one_example_too_many")],
    "a last batch of one that no step reaches": [
        model("normalised"),
        data("one_example_too_many"),
        "training.steps=1",
    ],
}


@pytest.mark.one_in(6)
@pytest.mark.parametrize("name", GOOD)
def test_odd_data_pass_and_train(check: Check, file: Path, tmp_path: Path, name: str) -> None:
    code, said = check(*GOOD[name])
    assert code == 0, said
    done = run_course(load_course(file, GOOD[name]), tmp_path / "run", in_process=True)
    assert done.history[0].num_examples >= 48


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("plain_lists", "train: inputs: read from a list as float64 (likewise: validation, test)"),
        (
            "exact_doubles",
            "train: inputs: float64, read as float32; no value changes (likewise: validation, test)",
        ),
        ("other_byte_order", "train: inputs: turned to this machine's byte order"),
        ("float_labels", "train: targets: float64, read as int64; no value changes"),
        ("torch_tensors", "train: inputs: read from a torch Tensor as float32"),
    ],
)
def test_what_is_cast_is_said(check: Check, name: str, note: str) -> None:
    assert note in check(data(name))[1]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "name", ["plain_lists", "bfloat16_tensors", "exact_doubles", "other_byte_order", "frames"]
)
def test_a_cast_changes_nothing(file: Path, tmp_path: Path, name: str) -> None:
    """The same weights as from the plain arrays, whose values these have."""
    reference = "good" if name != "bfloat16_tensors" else "rounded_to_bfloat16"
    runs = [
        run_course(load_course(file, [data(source)]), tmp_path / source, in_process=True)
        for source in (name, reference)
    ]
    assert runs[0].weights.digest == runs[1].weights.digest


def test_the_model_is_left_as_it_was(file: Path) -> None:
    """Statistics of batch normalisation too."""
    worker = Worker(load_course(file, [model("normalised")]), "torch", 1)
    before = worker.initial().digest
    assert worker.examine(Scope(thorough=True)).refused == ()
    assert worker.initial().digest == before


def test_every_loader_is_tried() -> None:
    named = {
        name
        for module in (loaders, bad_loaders)
        for name, thing in vars(module).items()
        if callable(thing) and thing.__module__ == module.__name__
    }
    source = Path(__file__).read_text()
    helpers = {"Frame", "good", "own", "rounded_to_bfloat16", "replaced"}
    helpers |= {name for name in named if name.endswith("_changed")}
    assert {
        name for name in named - helpers if not name.startswith("_") and f'"{name}"' not in source
    } == set()


def test_a_refused_run_leaves_nothing_behind(file: Path, tmp_path: Path) -> None:
    course = load_course(file, [data("nan_in_validation")])
    with pytest.raises(ConfigError, match="validation: inputs: NaN at row 7"):
        run_course(course, tmp_path / "run", in_process=True)
    assert not (tmp_path / "run").exists()
    run_course(load_course(file), tmp_path / "run", in_process=True)


def test_several_mistakes_keep_their_parts_between_processes() -> None:
    refused = Refusals()
    for message in ("one", "two", "one"):
        refused.add(ConfigError(message, hint="mend it"))
    with pytest.raises(CombinedError, match="2 errors; nothing was run") as caught:
        refused.raise_any()
    again = pickle.loads(pickle.dumps(caught.value))
    assert [(error.message, error.hint) for error in again.errors] == [("one", "mend it"), ("two", "mend it")]
    assert str(again) == str(caught.value)


def test_a_silos_own_file_is_looked_at_as_well(file: Path, tmp_path: Path) -> None:
    parts = {
        f"{name}_{key}": array
        for name, pair in loaders.good().items()
        for key, array in zip("xy", pair, strict=True)
    }
    parts["test_x"][3, 2] = np.nan
    np.savez(tmp_path / "mine.npz", **parts)
    with pytest.raises(ConfigError, match=r"mine.npz: test: inputs: NaN at row 3, column 2"):
        Silo.from_course(load_course(file), "torch-1", tmp_path / "mine.npz")
    parts["test_x"] = np.nan_to_num(parts["test_x"]).astype(np.float64)
    np.savez(tmp_path / "mine.npz", **parts)
    said: list[Event] = []
    Silo.from_course(load_course(file), "torch-1", tmp_path / "mine.npz", observer=said.append)
    assert [event.note.split("mine.npz: ")[1] for event in said if isinstance(event, Noted)] == [
        "test: inputs: float64, read as float32; no value changes"
    ]


def test_a_silo_is_handed_its_data(file: Path) -> None:
    course = load_course(file)
    handed = Splits(**{name: Dataset((x,), y) for name, (x, y) in loaders.good().items()})
    splits = OwnSplits("torch-1", handed, course)
    worker = Worker(course, "torch", 1, splits)
    assert worker.num_examples() == {"torch-1": len(splits.splits().train)}
    splits.splits().test.inputs[0][3, 2] = np.nan
    with pytest.raises(ConfigError, match=r"the data of 'torch-1': test: inputs: NaN at row 3, column 2"):
        worker.examine(Scope()).raise_any()


def test_a_silo_answers_for_its_own_data_alone(file: Path) -> None:
    course = load_course(file, [own("own", "own_nan", "raises")])
    assert Silo.from_course(course, "p0").name == "p0"
    assert Silo.from_course(course, "other").name == "other"
    with pytest.raises(ConfigError, match="NaN at row 1, column 1"):
        Silo.from_course(course, "p1")


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_what_no_loss_reads_is_named(check: Check, decay: float) -> None:
    """PyTorch's own backward pass says what has no gradient."""
    trained = heads()
    trained(torch.ones(2, 8))[0].sum().backward()
    without = [name for name, value in trained.named_parameters() if value.grad is None]
    status, text = check(model("heads"), f"training.optimizer={{name: sgd, lr: 0.1, weight_decay: {decay}}}")
    assert status == 0, text
    (line,) = [line for line in text.splitlines() if "the loss reads the first output" in line]
    assert f"reach others alone: {', '.join(without)};" in line
    assert ("weight decay alone changes them" if decay else "they stay as they are") in line
    assert "the loss reads" not in check(model("build"))[1]
