"""What is said of a model or an example that cannot be used: what is wrong with it, where, and a cure; never a library's own words alone."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers as K
from torch import nn
from torch.nn.utils import prune

import xbackend_fl
from tests.adapters.row import Lambda
from xbackend_fl.adapter import adapter_of
from xbackend_fl.errors import RefusedInput, XbflError

GENERATOR = np.random.default_rng(0)
VECTOR = GENERATOR.standard_normal((1, 6)).astype(np.float32)
IMAGE = GENERATOR.standard_normal((1, 3, 8, 9)).astype(np.float32)
TOKENS = GENERATOR.integers(0, 9, (1, 5))
HERE = Path(__file__).name


class Own(BaseException):
    pass


class KerasModel(keras.Model):
    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.computes, self.d = call, K.Dense(4)

    def call(self, x: Any, training: bool = False) -> Any:  # noqa: FBT001, FBT002  Keras's own signature
        return self.computes(self, x, training)


class Module(tf.Module):  # type: ignore[misc]  it has no types
    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.computes, self.w = call, tf.Variable(tf.ones((6, 4)))

    def d(self, x: Any) -> Any:
        return x @ self.w

    def __call__(self, x: Any, training: bool = False) -> Any:  # noqa: FBT001, FBT002  likewise
        return self.computes(self, x, training)


def in_torch(call: Callable[..., Any]) -> Any:
    return Lambda(lambda m, x: call(m, x, m.training), d=nn.Linear(6, 4))


def raising(error: BaseException) -> Any:
    raise error


FRAMEWORKS = {"torch": in_torch, "keras": KerasModel, "module": Module}
RAISED = [SystemExit(0), Own("gone"), GeneratorExit("gone"), KeyError("gone"), RecursionError("gone")]


def prove(model: Any, example: tuple[Any, ...]) -> xbackend_fl.BoundModel:
    """A model with itself."""
    schema, evidence = xbackend_fl.describe_reference(model, example)
    return xbackend_fl.bind(model, schema, example, evidence)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("error", RAISED, ids=[type(error).__name__ for error in RAISED])
def test_whatever_a_model_raises_is_its_own(framework: str, error: BaseException) -> None:
    with pytest.raises(RefusedInput) as caught:
        xbackend_fl.describe(FRAMEWORKS[framework](lambda *_: raising(error)), (VECTOR,))
    assert f"cannot be called with float32 [2, 6] (at tests/adapters/{HERE}:" in caught.value.message
    text = str(error.args[0])
    assert caught.value.message.endswith(f"{type(error).__name__}: {text}")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("error", [SystemExit(0), Own("gone")], ids=["SystemExit", "Own"])
def test_what_it_raises_in_training_mode_alone_is_an_obstacle(framework: str, error: BaseException) -> None:
    model = FRAMEWORKS[framework](lambda m, x, training: raising(error) if training else m.d(x))
    found = prove(model, (VECTOR,))
    assert found.proof.proven
    assert any("it cannot be called in training mode" in note for note in found.notes)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    "error", [SystemExit(0), Own("gone"), ValueError("gone")], ids=["exit", "own", "value"]
)
@pytest.mark.parametrize("calls", [1, 3])
def test_what_it_raises_while_it_is_proven_is_told(framework: str, error: BaseException, calls: int) -> None:
    left: Iterator[int] | None = None

    def call(m: Any, x: Any, _: object) -> Any:
        if left is not None and not tf.inside_function() and next(left, None) is None:
            raise error
        return m.d(x)

    model = FRAMEWORKS[framework](call)
    schema, evidence = xbackend_fl.describe_reference(model, (VECTOR,))
    adapter = adapter_of(model)
    trainer = adapter.load_model(model, (VECTOR,))
    left = iter(range(calls))
    with pytest.raises(RefusedInput) as caught:
        xbackend_fl.mapping.bind_trainer(adapter, trainer, schema, (VECTOR,), evidence)
    assert f"{type(error).__name__}: {error.args[0]}" in caught.value.message
    assert f"(at tests/adapters/{HERE}:" in caught.value.message


def test_an_interrupt_goes_on() -> None:
    for build in FRAMEWORKS.values():
        with pytest.raises(KeyboardInterrupt):
            xbackend_fl.describe(build(lambda *_: raising(KeyboardInterrupt())), (VECTOR,))


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU())


EXAMPLES: list[tuple[str, tuple[Any, ...], str, str]] = [
    ("none", (), "the example has no arrays", "--input"),
    ("an empty batch", (VECTOR[:0],), "input 0 of the example is float32 [0, 6], which holds no example", "batch"),
    ("no features", (VECTOR[:, :0],), "float32 [1, 0], which holds no numbers", ""),
    ("a number", (np.array(3, np.float32),), "a single number", "array[None]"),
    ("a list", ([1.0],), "is a list, not an array", "asarray"),
    ("64 bits", (VECTOR.astype(np.float64),), "float64 [1, 6]; expected float32", "astype"),
    ("16 bits", (VECTOR.astype(np.float16),), "float16 [1, 6]; expected float32", "astype"),
    ("complex", (VECTOR.astype(np.complex64),), "complex64", "two inputs"),
    ("text", (np.array([["a"] * 6]),), "<U1 [1, 6]", "look them up"),
    ("objects", (np.array([["a"] * 6], object),), "object [1, 6]", "look them up"),
    ("text in TensorFlow", (tf.constant([["a"] * 6]),), "object [1, 6]", "look them up"),
    ("NaN", (VECTOR * np.nan,), "not finite", "finite"),
    ("infinity", (VECTOR * np.inf,), "not finite", "finite"),
    ("the second", (VECTOR, VECTOR[:0]), "input 1 of the example", ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "example", "words", "cure"), EXAMPLES, ids=[row[0] for row in EXAMPLES])
@pytest.mark.parametrize("build", [dense, lambda: keras.Sequential([keras.Input((6,)), K.Dense(4)])],
                         ids=["torch", "keras"])  # fmt: skip
def test_an_example_that_is_none(
    build: Callable[[], Any], name: str, example: tuple[Any, ...], words: str, cure: str
) -> None:
    del name
    with pytest.raises(RefusedInput) as caught:
        xbackend_fl.describe(build(), example)
    assert words in caught.value.message
    assert cure in (caught.value.hint or "")


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "example",
    [torch.tensor(VECTOR), torch.tensor(VECTOR, requires_grad=True), tf.constant(VECTOR), VECTOR.astype(">f4"), VECTOR[:, ::-1],
     np.broadcast_to(np.float32(1), (1, 6))],
    ids=["torch", "with gradient", "tensorflow", "other bytes", "backwards", "read-only"],
)  # fmt: skip
@pytest.mark.parametrize("build", [dense, lambda: keras.Sequential([keras.Input((6,)), K.Dense(4)])],
                         ids=["torch", "keras"])  # fmt: skip
def test_an_example_in_another_form(build: Callable[[], Any], example: Any) -> None:
    assert prove(build(), (example,)).proof.proven


def looking_up() -> nn.Module:
    return nn.Sequential(nn.Embedding(9, 4))


def channels_last() -> nn.Module:
    return Lambda(lambda m, x: m.c(x.permute(0, 3, 1, 2)), c=nn.Conv2d(3, 4, 3))


def two_inputs() -> nn.Module:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            return self.l(x) + ids[:, :4]

    return Two()


def inference_mode() -> nn.Module:
    with torch.inference_mode():
        return dense()


def quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(dense(), {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-any-return]


def scripted(how: Callable[[nn.Module], Any], *, inside: bool = False) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = how(dense().eval())
    return nn.Sequential(made, nn.ReLU()) if inside else made


def holding(tensor: torch.Tensor, *, trains: bool) -> nn.Module:
    model = Lambda(lambda m, x: m.l(x), l=nn.Linear(6, 4))
    if trains:
        model.t = nn.Parameter(tensor)
    else:
        model.register_buffer("t", tensor)
    return model


def meta() -> nn.Module:
    return dense().to("meta")


MODELS: list[tuple[str, Callable[[], Any], tuple[Any, ...], str, str]] = [
    ("floats for whole numbers", looking_up, (VECTOR,), "it takes int64 for input 0", "--input int64:1,6"),
    ("whole numbers for floats", dense, (VECTOR.astype(int),), "int64 [2, 6]: RuntimeError", "--input 1,6"),
    ("booleans for floats", dense, (VECTOR > 0,), "it takes float32 for input 0", "--input 1,6"),
    ("a number beyond the table", looking_up, (TOKENS + 20,), "it takes zeros, and the example goes up to", "rows"),
    ("channels last", lambda: nn.Sequential(nn.Conv2d(3, 4, 3)), (np.moveaxis(IMAGE, 1, -1),), "[2, 3, 8, 9]", "channels second"),
    ("a model of channels last", channels_last, (IMAGE,), "[2, 8, 9, 3]", "with_axes(model"),
    ("another width", dense, (VECTOR[:, :5],), "cannot be multiplied (2x5 and 6x4)", "give inputs that it takes"),
    ("an input too few", two_inputs, (VECTOR,), "takes 2 inputs (x, ids); the example has 1", "--input"),
    ("an input too many", dense, (VECTOR, VECTOR), "takes 1 inputs (input); the example has 2", "--input"),
    ("inference mode", inference_mode, (VECTOR,), "'0.weight' was made under torch.inference_mode", "copy.deepcopy"),
    ("a script", lambda: scripted(torch.jit.script), (VECTOR,), "the model is TorchScript", "load_state_dict"),
    ("a frozen script", lambda: scripted(lambda m: torch.jit.freeze(torch.jit.script(m))), (VECTOR,), "TorchScript", "code"),
    ("a trace", lambda: scripted(lambda m: torch.jit.trace(m, torch.ones(2, 6))), (VECTOR,), "TorchScript", "code"),
    ("a script inside", lambda: scripted(torch.jit.script, inside=True), (VECTOR,), "the module '0' is TorchScript", "code"),
    ("no numbers", meta, (VECTOR,), "'0.weight' is on the device 'meta'", "to_empty"),
    ("whole weights", quantized, (VECTOR,), "the module '0' is quantized", "before"),
    ("a sparse parameter", lambda: holding(torch.eye(6).to_sparse(), trains=True), (VECTOR,), "parameter 't' is stored", "to_dense"),
    ("a sparse buffer", lambda: holding(torch.eye(6).to_sparse_csr(), trains=False), (VECTOR,), "buffer 't' is stored", "to_dense"),
    ("a complex buffer", lambda: holding(torch.ones(3) * 1j, trains=False), (VECTOR,), "buffer 't' is torch.complex64", "two buffers"),
    ("a quantized buffer", lambda: holding(torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8), trains=False), (VECTOR,),
     "buffer 't' is quantized", "before"),
    ("8 bits", lambda: holding(torch.ones(3).to(torch.float8_e4m3fn), trains=False), (VECTOR,), "float8_e4m3fn", "float()"),
    ("no output", lambda: nn.Sequential(nn.Linear(6, 0)), (VECTOR,), "'0.weight' has the shape [0, 6] and holds no number", "width"),
    ("nothing in the middle", lambda: nn.Sequential(nn.Linear(6, 0), nn.Linear(0, 3)), (VECTOR,), "'0.weight'", "width"),
    ("no rows", lambda: nn.Sequential(nn.Embedding(0, 3)), (TOKENS,), "'0.weight' has the shape [0, 3]", "width"),
    ("a class", lambda: nn.Linear, (VECTOR,), "the class Linear itself", "Linear(…)"),
    ("numbers taken out", lambda: Lambda(lambda m, x: m.l(x) * float(np.tanh(x.detach().numpy()).sum()), l=nn.Linear(6, 4)),
     (VECTOR,), "Python reads there what the tensors hold", "torch.where"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*(Sparse CSR|Sparse invariant|zero-element)")
@pytest.mark.parametrize(
    ("name", "build", "example", "words", "cure"), MODELS, ids=[row[0] for row in MODELS]
)
def test_a_model_that_cannot_be_read(
    name: str, build: Callable[[], Any], example: tuple[Any, ...], words: str, cure: str
) -> None:
    del name
    with pytest.raises(XbflError) as caught:
        prove(build(), example)
    assert words in caught.value.message
    assert cure in (caught.value.hint or "")
    assert "does not know this form" not in (caught.value.hint or "")


def test_the_cure_of_inference_mode() -> None:
    assert prove(copy.deepcopy(inference_mode()), (VECTOR,)).proof.proven


def test_the_cure_of_channels_last() -> None:
    model = xbackend_fl.with_axes(channels_last(), inputs=[(0, 2, 3, 1)])
    assert prove(model, (IMAGE,)).proof.proven


def distributed() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


process_group = pytest.fixture(distributed)


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled in place": in_place,
    "on several devices": nn.DataParallel,
    "on several machines": nn.parallel.DistributedDataParallel,
    "both": lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
}


@pytest.mark.one_in(2)
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_model_is_the_model_inside(wrap: Callable[[nn.Module], Any]) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    plain = adapter_of(model).load_model(copy.deepcopy(model), (VECTOR,))
    wrapped = wrap(model)
    schema = xbackend_fl.describe(wrapped, (VECTOR,))
    assert schema.fingerprint == plain.description.schema.fingerprint
    found = xbackend_fl.bind(wrapped, schema, (VECTOR,), xbackend_fl.gather_evidence(wrapped, (VECTOR,)))
    assert found.proof.proven
    assert sorted(found.trainer.read()) == sorted(plain.read())
    found.write(found.read())


def test_what_is_compiled_inside_runs_as_it_is_written() -> None:
    def backend(graph: Any, _: Any) -> Any:
        pytest.fail(f"compiled {graph}")

    relu = torch.compile(torch.relu, backend=backend)
    assert prove(Lambda(lambda m, x: relu(m.l(x)), l=nn.Linear(6, 4)), (VECTOR,)).proof.proven


def test_pruned_weights_are_plain_in_a_copy() -> None:
    model = dense()
    prune.l1_unstructured(model[0], "weight", 0.5)
    found = prove(model, (VECTOR,))
    assert found.proof.proven
    assert any("pruning computes it" in note and "prune.remove" in note for note in found.notes)
    assert prune.is_pruned(model)
    assert "0.weight" in found.trainer.read()
