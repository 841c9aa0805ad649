"""Several outputs with a loss each: one model of two frameworks, trained as a plain loop of PyTorch's does it, and measured as scikit-learn does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score
from torch.nn import functional as F

import xbackend_fl as xb
from tests.federation.links import deployed
from tests.federation.local import LocalLink
from tests.simulation import two_heads
from xbackend_fl import load_course
from xbackend_fl.data import batches
from xbackend_fl.errors import ConfigError, MismatchError, RunFailed
from xbackend_fl.events import Event, ParticipantTrained
from xbackend_fl.federation import Silo
from xbackend_fl.report import describe
from xbackend_fl.rounds import Run
from xbackend_fl.simulation import resume_run, run_course
from xbackend_fl.weights import open_weights

Array = NDArray[Any]
ROOM = Path(two_heads.__file__)
COURSE = f"""
name: scans
rounds: 2
models: {{torch: "{ROOM}:torch_tuple", tensorflow: "{ROOM}:keras_dict"}}
input: ["1,6"]
data: {{source: "{ROOM}:load"}}
participants: [{{name: osaka, backend: torch}}, {{name: lyon, backend: tensorflow}}]
training:
  batch_size: 8
  epochs: 2
  optimizer: {{name: sgd, lr: 0.05}}
  outputs:
    organ: {{output: 0, loss: cross_entropy, metrics: [accuracy]}}
    age: {{output: 1, loss: huber, weight: 0.1, metrics: [mae, r2]}}
"""
NAMED = "training.outputs={organ: {loss: cross_entropy}, age: {loss: huber, weight: 0.1}}"
ONE_BACKEND = ("participants={torch: 2}", f"models={{torch: '{ROOM}:torch_tuple'}}")


def run(folder: Path, *settings: str, observer: Any = lambda _: None) -> Run:
    folder.mkdir(exist_ok=True)
    (folder / "course.yaml").write_text(COURSE)
    course = load_course(folder / "course.yaml", settings)
    return run_course(course, folder / "run", observer=observer, in_process=True)


def weights(found: Run) -> Mapping[str, Array]:
    return open_weights(found.path / "last.safetensors")


def apart(one: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    assert {*one} == {*other}
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


@pytest.fixture(scope="module")
def initial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights to begin with, of PyTorch's own making."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("initial") / "initial.pt"
    torch.save(two_heads.torch_tuple().state_dict(), path)
    return path


def own_data(*backends: str) -> str:
    pairs = zip(("osaka", "lyon"), backends, strict=True)
    listed = [f"{{name: {name}, backend: {backend}, data: '{ROOM}:of_{name}'}}" for name, backend in pairs]
    return f"participants=[{', '.join(listed)}]"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, initial: Path) -> tuple[Run, list[Event]]:
    events: list[Event] = []
    folder = tmp_path_factory.mktemp("heads")
    return run(folder, f"initial={initial}", own_data("torch", "tensorflow"), observer=events.append), events


def plain_loop(
    initial: Path, *, mu: float = 0.0, in_order: bool = False, lyon: Any = two_heads.of_lyon
) -> tuple[dict[str, Array], list[float]]:
    """Two rounds of federated averaging in PyTorch alone; weights, and the mean loss of every participant in every round."""
    model, state = two_heads.torch_tuple(), torch.load(initial)
    held = {"osaka": two_heads.of_osaka(), "lyon": lyon()}
    losses = []
    for number in (1, 2):
        sums = {name: torch.zeros_like(value) for name, value in state.items()}
        for name, (inputs, targets) in held.items():
            x, organ, age = (torch.tensor(a) for a in (inputs, targets["organ"], targets["age"]))
            model.load_state_dict(state)
            optimizer = torch.optim.SGD(model.parameters(), 0.05)
            seen: list[tuple[float, int]] = []
            rows = 2 * np.split(np.arange(len(x)), len(x) // 8)
            for part in rows if in_order else batches(len(x), 8, 2, None, 0, "batches", number, name):
                i = torch.from_numpy(part)
                optimizer.zero_grad()
                scores, years = model(x[i])
                loss = 0.1 * F.huber_loss(years, age[i])
                if (organ[i] != -100).any():
                    loss = loss + F.cross_entropy(scores, organ[i])
                far = sum(((p - state[n]) ** 2).sum() for n, p in model.named_parameters())
                (loss + mu / 2 * far).backward()
                optimizer.step()
                seen.append((float(loss.detach()), int((organ[i] != -100).sum()) + len(i)))
            losses.append(sum(a * b for a, b in seen) / sum(b for _, b in seen))
            for key, value in model.state_dict().items():
                sums[key] += value * (len(x) / 96)
        state = sums
    return {name: value.numpy() for name, value in state.items()}, losses


def test_two_frameworks_train_what_a_plain_loop_trains(
    finished: tuple[Run, list[Event]], initial: Path
) -> None:
    found, events = finished
    expected, losses = plain_loop(initial)
    assert apart(weights(found), expected) < 2e-6
    trained = {(e.round, e.name): e.loss for e in events if isinstance(e, ParticipantTrained)}
    order = [(number, name) for number in (1, 2) for name in ("osaka", "lyon")]
    assert [trained[key] for key in order] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_a_participant_without_labels_of_one_output_trains_the_others(
    backend: str, initial: Path, tmp_path: Path
) -> None:
    lyon = f"{{name: lyon, backend: {backend}, data: '{ROOM}:of_lyon_unlabelled'}}"
    osaka = f"{{name: osaka, backend: torch, data: '{ROOM}:of_osaka'}}"
    events: list[Event] = []
    settings = (f"initial={initial}", f"participants=[{osaka}, {lyon}]")
    found = run(tmp_path / "all", *settings, observer=events.append)
    expected, losses = plain_loop(initial, lyon=two_heads.of_lyon_unlabelled)
    assert apart(weights(found), expected) < 2e-6
    trained = [event.loss for event in events if isinstance(event, ParticipantTrained)]
    assert sorted(trained) == pytest.approx(sorted(losses), rel=1e-5)
    said = " ".join(describe(event) for event in events)
    assert "organ: no target counts: all are -100; nothing is trained or measured of this output here" in said
    # Where each measures on data of its own, the figures of the output are of those who have it.
    measured = run(tmp_path / "held", *settings, "evaluation.validation=participants").history[-1]
    assert {"loss", "organ/accuracy", "age/mae"} <= {*measured.metrics}
    osaka_alone = measured.participants["mean"]["organ/accuracy"]
    assert measured.metrics["organ/accuracy"] == pytest.approx(osaka_alone)


def test_a_validation_set_without_labels_of_one_output_measures_the_others(tmp_path: Path) -> None:
    source = f"data.source={ROOM}:validated_unlabelled"
    for best in ("loss", "organ/accuracy"):
        with pytest.raises(ConfigError, match="is not defined: no target of organ counts") as caught:
            run(tmp_path, source, f"evaluation.best={best}", *ONE_BACKEND)
        assert "evaluation.best: age/loss" in str(caught.value.hint)
    found = run(tmp_path, source, "evaluation.best=age/loss", *ONE_BACKEND)
    assert {*found.history[-1].metrics} == {"age/loss", "age/mae", "age/r2"}
    assert found.result is not None
    assert "organ/accuracy" in found.result.test_metrics
    # Many examples are looked at a block at a time, and of a block nothing may count.
    found = run(tmp_path / "sorted", f"data.source={ROOM}:sorted_by_labels", *ONE_BACKEND)
    assert {"loss", "organ/accuracy"} <= {*found.history[-1].metrics}


def test_of_some_output_a_target_must_count(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no target counts: all are -100, which is training\.outputs\.organ"
    ) as caught:
        run(
            tmp_path,
            f"data.source={ROOM}:nothing_counts",
            "training.outputs.age={output: 1, loss: binary_cross_entropy}",
            *ONE_BACKEND,
        )
    assert "training.outputs.age.ignore_index: null" in str(caught.value.hint)


def test_figures_are_those_of_scikit_learn(finished: tuple[Run, list[Event]]) -> None:
    found, events = finished
    assert found.result is not None
    model = two_heads.torch_tuple()
    model.load_state_dict(torch.load(found.path / "model.pt", weights_only=True))
    inputs, targets = two_heads.load()["test"]
    with torch.no_grad():
        organ, age = model(torch.from_numpy(inputs))
    counted, years = targets["organ"] != -100, targets["age"]
    wanted = torch.from_numpy(targets["organ"])
    losses = float(F.cross_entropy(organ, wanted)), float(F.huber_loss(age, torch.from_numpy(years)))
    expected = {
        "loss": losses[0] + 0.1 * losses[1],
        "organ/loss": losses[0],
        "organ/accuracy": accuracy_score(targets["organ"][counted], organ.numpy()[counted].argmax(1)),
        "age/loss": losses[1],
        "age/mae": mean_absolute_error(years, age.numpy()),
        "age/r2": r2_score(years, age.numpy()),
    }
    assert {*found.result.test_metrics} == {*expected}
    assert found.result.test_metrics == pytest.approx(expected, rel=1e-5)
    lines = [describe(event) for event in events]
    assert any("organ/accuracy " in text and "%" in text and "age/mae " in text for text in lines)
    page = (found.path / "summary.md").read_text()
    assert "| validation organ/accuracy |" in page
    assert "Test loss of the last weights" in page


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("torch: torch_dict", "tensorflow: keras_dict"),
        ("torch: torch_tuple", "tensorflow: keras_tuple"),
        ("tensorflow: keras_dict", "torch: torch_tuple"),
    ],
)
def test_outputs_are_bound_whatever_a_model_returns_them_in(
    first: str, second: str, finished: tuple[Run, list[Event]], initial: Path, tmp_path: Path
) -> None:
    """A tuple, a dict in another order; the reference of either framework, which learns names of its own for the same weights."""
    models = ", ".join(pair.replace(": ", f": '{ROOM}:", 1) + "'" for pair in (first, second))
    named = "tuple" not in first
    begin = f"initial={initial}" if first.startswith("torch") else "seed=0"
    other = run(
        tmp_path, f"models={{{models}}}", own_data("torch", "tensorflow"), begin, *([NAMED] if named else [])
    )
    if first.startswith("torch"):
        assert apart(weights(other), weights(finished[0])) < 2e-6
    assert other.result is not None
    assert other.history[-1].metrics["organ/accuracy"] > 0


def test_an_output_without_a_loss_is_not_taken_for_one_in_another_order(
    initial: Path, tmp_path: Path
) -> None:
    one, other = (
        weights(
            run(
                tmp_path / keras,
                f"models={{torch: '{ROOM}:torch_three', tensorflow: '{ROOM}:{keras}'}}",
                f"initial={initial}",
                own_data("torch", "tensorflow"),
                NAMED,
            )
        )
        for keras in ("keras_three", "keras_three_named")
    )
    assert apart(one, other) < 2e-6


def test_two_tuples_in_another_order_are_refused_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="two outputs are exchanged") as caught:
        run(tmp_path, f"models={{torch: '{ROOM}:torch_tuple', tensorflow: '{ROOM}:keras_other'}}")
    assert "a dict with the same names" in str(caught.value.hint)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_the_rule_of_fedprox(backend: str, initial: Path, tmp_path: Path) -> None:
    settings = (
        f"initial={initial}",
        own_data(backend, backend),
        "federate.algorithm={name: fedprox, mu: 0.5}",
    )
    expected, _ = plain_loop(initial, mu=0.5)
    assert apart(weights(run(tmp_path, *settings)), expected) < 2e-6


def test_a_loop_of_the_user_s_own_gets_targets_by_name(initial: Path, tmp_path: Path) -> None:
    settings = (
        f"initial={initial}",
        own_data("torch", "torch"),
        "federate.algorithm={name: fedprox, mu: 0.5}",
    )
    expected, _ = plain_loop(initial, mu=0.5)
    loop = f"models.torch={{build: '{ROOM}:torch_tuple', train: '{ROOM}:train'}}"
    assert apart(weights(run(tmp_path, *settings, loop)), expected) < 2e-6


def test_scaffold_and_frozen_and_local_parameters_are_the_same_on_both(initial: Path, tmp_path: Path) -> None:
    settings = (
        f"initial={initial}",
        "federate.algorithm=scaffold",
        "federate.frozen=['body.*']",
    )
    found = [
        run(tmp_path / backend, own_data(backend, backend), *settings) for backend in ("torch", "tensorflow")
    ]
    one, other = map(weights, found)
    assert apart(one, other) < 2e-6
    begun = torch.load(initial)
    assert np.array_equal(one["body.weight"], begun["body.weight"].numpy())
    assert not np.array_equal(one["age.weight"], begun["age.weight"].numpy())
    kept = run(
        tmp_path / "local", own_data("torch", "tensorflow"), f"initial={initial}", "federate.local=['age.*']"
    )
    assert np.array_equal(weights(kept)["age.weight"], begun["age.weight"].numpy())


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "loss",
    [
        f"'{ROOM}:as_huber'",
        f"{{torch: '{ROOM}:torch_huber', tensorflow: '{ROOM}:keras_huber'}}",
    ],
)
def test_a_loss_of_the_user_s_own(
    loss: str, finished: tuple[Run, list[Event]], initial: Path, tmp_path: Path
) -> None:
    other = run(
        tmp_path, f"initial={initial}", own_data("torch", "tensorflow"), f"training.outputs.age.loss={loss}"
    )
    assert apart(weights(other), weights(finished[0])) < 2e-6
    assert other.history[-1].metrics == pytest.approx(finished[0].history[-1].metrics, rel=1e-5)


def test_losses_of_two_backends_that_are_two_are_refused(tmp_path: Path) -> None:
    loss = f"{{torch: '{ROOM}:torch_huber', tensorflow: '{ROOM}:keras_half'}}"
    with pytest.raises(MismatchError, match="two losses"):
        run(tmp_path, f"training.outputs.age.loss={loss}")


@pytest.mark.one_in(4)
@pytest.mark.parametrize("source", ["as_tuples", "as_items", "as_named_items", "as_triples"])
def test_data_of_any_kind(source: str, tmp_path: Path) -> None:
    one, other = (
        run(tmp_path / name, f"data.source={ROOM}:{name}", *ONE_BACKEND, "training.epochs=1")
        for name in ("load", source)
    )
    assert apart(weights(one), weights(other)) == 0
    assert one.history[0].metrics == other.history[0].metrics


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", ["loader", "pairs", "tf_data"])
def test_data_that_are_gone_through(kind: str, initial: Path, tmp_path: Path) -> None:
    mine = own_data("torch", "tensorflow").replace(":of_", f":{kind}_of_")
    expected, _ = plain_loop(initial, in_order=True)
    assert apart(weights(run(tmp_path, mine, f"initial={initial}")), expected) < 2e-6


def test_silos_end_with_the_same_bits(tmp_path: Path) -> None:
    settings = (
        own_data("torch", "tensorflow"),
        "evaluation.reported={furthest: min}",
        f"participants.0.evaluate={ROOM}:judge",
    )
    expected = run(tmp_path, *settings)
    course = load_course(tmp_path / "course.yaml", settings)
    silos = [Silo.from_course(course, participant.name) for participant in course.participants]
    found, _ = deployed(course, LocalLink(silos), tmp_path / "deployed")
    assert found.weights.digest == expected.weights.digest
    for one, other in zip(found.history, expected.history, strict=True):
        # The common examples count once for every silo.
        assert one.metrics == pytest.approx(other.metrics, rel=1e-6)


def test_a_course_in_python(initial: Path, finished: tuple[Run, list[Event]], tmp_path: Path) -> None:
    """Models, data and the data of participants are objects."""
    course = xb.Course(
        name="scans",
        rounds=2,
        initial=str(initial),
        models={"torch": two_heads.torch_tuple, "tensorflow": two_heads.keras_dict},
        input=["1,6"],
        data={"source": two_heads.load()},
        participants=[
            xb.Participant("osaka", "torch", data=two_heads.of_osaka()),
            xb.Participant("lyon", "tensorflow", data=two_heads.of_lyon()),
        ],
        training={
            "batch_size": 8,
            "epochs": 2,
            "optimizer": {"name": "sgd", "lr": 0.05},
            "outputs": {
                "organ": {"output": 0, "loss": "cross_entropy", "metrics": ["accuracy"]},
                "age": {"output": 1, "loss": "huber", "weight": 0.1, "metrics": ["mae", "r2"]},
            },
        },
    )
    found = run_course(course, tmp_path / "run", in_process=True)
    assert apart(weights(found), weights(finished[0])) == 0


def test_a_transform_of_both_targets_is_the_same_on_both(tmp_path: Path) -> None:
    settings = (f"data.transform={ROOM}:moved", "rounds=1")
    one, other = (
        weights(run(tmp_path / f"{number}", *settings, own_data(*backends)))
        for number, backends in enumerate([("torch", "tensorflow"), ("tensorflow", "torch")])
    )
    assert apart(one, other) < 2e-6


def test_a_run_goes_on_with_the_same_bits(
    finished: tuple[Run, list[Event]], initial: Path, tmp_path: Path
) -> None:
    settings = (f"initial={initial}", own_data("torch", "tensorflow"))
    (tmp_path / "course.yaml").write_text(COURSE)
    course = load_course(tmp_path / "course.yaml", settings)
    asked = iter([False, True])
    begun = run_course(course, tmp_path / "run", in_process=True, should_stop=lambda: next(asked, True))
    assert begun.result is None or begun.result.interrupted
    whole = resume_run(begun.path, in_process=True)
    assert apart(weights(whole), weights(finished[0])) == 0


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("settings", "error", "words", "cure"),
    [
        (("training.outputs.organ.output=2",), ConfigError, "has no output '2'; there are the numbers 0 to 1", "output: 0"),
        (
            (f"models={{torch: '{ROOM}:torch_dict'}}", "participants={torch: 2}", "training.outputs.organ.output=liver"),
            ConfigError,
            "has no output 'liver'; there are age, organ",
            "output: organ",
        ),
        ((f"models={{torch: '{ROOM}:torch_softmax', tensorflow: '{ROOM}:keras_dict'}}",), ConfigError, "the output 'organ' of the model ends in Softmax", "remove"),
        ((f"data.source={ROOM}:one_target",), ConfigError, "one ndarray, and training.outputs reads organ, age", "'organ': …, 'age': …"),
        ((f"data.source={ROOM}:no_age",), ConfigError, "nothing for age, which training.outputs names; there are organ, weight", "'age'"),
        ((f"data.source={ROOM}:shorter",), ConfigError, "95 in targets: age", "as many"),
        ((f"data.source={ROOM}:beyond",), ConfigError, "organ: row 20: the target 4 is not a class of the model, 0 to 3", ""),
        ((f"data.source={ROOM}:endless",), ConfigError, "age: NaN at row 20", "leave"),
        ((f"data.source={ROOM}:words",), ConfigError, "targets: age: text", "number"),
        (("training.outputs={organ: {output: 1, loss: cross_entropy}, age: {output: 0, loss: huber}}",), ConfigError, "organ: cross_entropy chooses between classes", "training.outputs.organ.loss"),
        ((f"data.transform={ROOM}:too_far",), RunFailed, "too_far: batch 0: returned targets: row 0: organ: the target 9", "or choose another loss"),
        ((f"data.transform={ROOM}:forgetful",), RunFailed, "not a dict of organ, age", "same keys"),
        (("data.partition={kind: dirichlet, alpha: 1}",), ConfigError, "shares examples out by their class, and training.outputs reads several", "iid"),
        (("training.outputs={}",), ConfigError, "needs 1 at least", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_names_the_head(
    settings: tuple[str, ...], error: type[Exception], words: str, cure: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        run(tmp_path, "rounds=1", *settings)
    text = f"{caught.value} {getattr(caught.value, 'hint', '')}"
    assert words in text
    assert cure in text


def test_a_model_of_two_named_outputs_and_one_loss_is_told_of_outputs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="several outputs by name") as caught:
        run(
            tmp_path,
            f"models={{torch: '{ROOM}:torch_dict'}}",
            "participants={torch: 2}",
            "training={}",
            f"data.source={ROOM}:one_target",
        )
    assert "outputs: {age: {loss: …}" in str(caught.value.hint)


def test_an_output_without_a_loss_is_said_and_stays_as_it_is(initial: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    only = "training.outputs={organ: {output: 0, loss: cross_entropy}}"
    found = run(tmp_path, f"initial={initial}", own_data("torch", "tensorflow"), only, observer=events.append)
    said = " ".join(describe(event) for event in events)
    assert "the outputs 1 of the model have no loss, and play no part in training" in said
    assert "reach others alone: age.weight, age.bias" in said
    assert "age are read by no loss" in said or "age is read by no loss" in said
    assert np.array_equal(weights(found)["age.weight"], torch.load(initial)["age.weight"].numpy())
    assert {*found.history[-1].metrics} == {"loss", "organ/loss", "organ/accuracy"}
    assert found.history[-1].metrics["loss"] == found.history[-1].metrics["organ/loss"]


def test_what_chooses_and_stops_and_slows_down_may_be_of_one_output(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        "rounds=4",
        "evaluation.best=organ/accuracy",
        "evaluation.validation=participants",
        "early_stopping={metric: age/mae, patience: 1, min_delta: 100}",
        "training.schedule={name: plateau, metric: age/mae, patience: 1}",
        f"training.outputs.age.metrics=[mae, '{ROOM}:Bias']",
        "evaluation.reported={furthest: min}",
        f"participants.0.evaluate={ROOM}:judge",
    )
    assert found.result is not None
    assert found.result.metric == "organ/accuracy"
    assert len(found.history) == 2
    figures = found.history[-1]
    assert {"age/Bias", "age/mae", "furthest"} <= {*figures.metrics}
    accuracy = {over: one["organ/accuracy"] for over, one in figures.participants.items()}
    assert 0 <= accuracy["worst_tenth"] <= accuracy["mean"] <= 1
    errors = {over: one["age/mae"] for over, one in figures.participants.items()}
    assert errors["worst_tenth"] >= errors["mean"]
