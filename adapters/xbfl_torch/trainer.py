"""Trains, evaluates and moves the tensors of one ``nn.Module``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from xbackend_fl.adapter.axes import declared_axes
from xbackend_fl.adapter.batch_loss import batch_loss
from xbackend_fl.adapter.blame import explained, not_accepted
from xbackend_fl.adapter.cohort import LOCKSTEP, ClientResult, ClientWork, CohortResult
from xbackend_fl.adapter.contract import Array, Batch, LiteModel, LossSum, Scaling, Tensors, TrainConfig
from xbackend_fl.adapter.example import Example, checked, with_masks
from xbackend_fl.adapter.outputs import output_leaves
from xbackend_fl.adapter.renewing import check_same
from xbackend_fl.canonical import Description, NativeTensor
from xbackend_fl.canonical.dtypes import widened
from xbackend_fl.errors import AdapterError, RefusedInput
from xbackend_fl.losses import each_of
from xbfl_torch import cohort, outer_product
from xbfl_torch.describe import describe, is_tensor, tensors_of
from xbfl_torch.devices import enough_memory, seed_generators
from xbfl_torch.exporting import export_onnx
from xbfl_torch.lending import LentModule, lent
from xbfl_torch.lite import export_lite
from xbfl_torch.local_stepper import LocalStepper
from xbfl_torch.losses import mean_loss
from xbfl_torch.masters import Masters
from xbfl_torch.modes import autocast, evaluation_mode, few_threads
from xbfl_torch.parametrizations import materialised
from xbfl_torch.plain import check_modules, unwrapped
from xbfl_torch.plan import Plan
from xbfl_torch.preserve import modules_kept
from xbfl_torch.replicas import Replicas
from xbfl_torch.stacked.cohorts import Lockstep
from xbfl_torch.stacked.memory import highest
from xbfl_torch.steps import plain_gradients, training_mode

_REPLICAS = 16
"""Of a model that cannot train in lockstep."""


@final
class TorchTrainer:
    """An ``nn.Module`` behind the trainer contract.

    Args:
        model: The module; its weights change only by :meth:`write` and :meth:`train`.
        example: Its arrays in ONNX layout, in any form; the schema has them in its order.
    """

    def __init__(self, model: object, example: Example) -> None:
        if not isinstance(model, torch.nn.Module):
            raise RefusedInput(f"expected a torch.nn.Module, received {type(model).__name__}")
        declared, model = declared_axes(model), unwrapped(model)
        self._source = model
        self._masters = masters = Masters(model)
        with (
            explained(f"describing {type(model).__name__}", model),
            masters.inside(),
            modules_kept(model),
            few_threads(model),
        ):
            given = checked(example)
            check_modules(model)
            self._model, computed = materialised(model)
            self._tensors = tensors_of(self._model)
            described = describe(self._model, given, computed, declared)
            self._initial_local = {
                name: self._tensors[name].detach().clone() for name in described.description.binding.local
            }
        description = described.description.stored_in(masters.dtypes if self._model is model else {})
        self._description = with_masks(description, given.arrays, packs=described.packs)
        self._calls = described.calls
        self._as_returned, self._order = (
            self._description,
            tuple(range(len(self._description.schema.outputs))),
        )
        self._way = described.way
        self._probed = False
        self._device = "cpu"
        self._example = given.arrays
        self._wanted: int | None = 1
        self._data: cohort.Data | None = None
        self._replicas: Replicas | None = None
        self._lockstep: Lockstep | None = None
        self._stacks = False
        self._said = ""
        self._lying: tuple[int, ...] = ()

    @property
    def description(self) -> Description:
        """Schema and binding of the model."""
        return self._description

    def return_in(self, order: Sequence[int]) -> None:
        """Return outputs in this order of the model's own."""
        self._order, self._description = tuple(order), self._as_returned.with_outputs(order)

    def read(self) -> dict[str, Array]:
        """Copies of all parameters and buffers; of those in half precision, their float32 masters."""
        with self._masters.inside():
            return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._tensors.items()}

    def renew(self) -> None:
        """Hold the module's tensors of now, and materialise computed weights again: a plain copy does not follow them."""
        natives = self._description.binding.natives
        live = tensors_of(self._source)
        if not self._masters.cover(live):
            self._masters = Masters(self._source)
        with self._masters.inside():
            model, computed = materialised(self._source)
            if computed and self._model is self._source:
                raise RefusedInput(
                    f"since it was bound, the model has come to compute its tensor {computed[0].where!r} from others",
                    hint="bind it again, as it is now",
                )
            found = tensors_of(model)
            halves = self._masters.dtypes if model is self._source else {}
            check_same(natives, _natives(found, halves), dict(model.named_parameters()))
            if model is self._model:
                self._tensors = found
                return
            with torch.no_grad():
                for name, tensor in self._tensors.items():
                    tensor.copy_(found[name])

    def write(self, tensors: Mapping[str, Array]) -> None:
        """Set parameters and buffers; those in half precision hold the rounding, their masters the numbers."""
        with self._masters.inside(), torch.no_grad():
            for name, array in tensors.items():
                if not self._masters.put_bits(name, array):
                    _put(self._tensors[name], widened(array))
            if not self._probed:
                self._masters.check_range()

    @contextmanager
    def preserved(self) -> Iterator[None]:
        """The module, its weights, the generators and the number of threads are afterwards as they were before."""
        with self._masters.inside(), few_threads(self._model):
            before, self._probed = self.read(), True
            with modules_kept(self._model):
                try:
                    yield
                finally:
                    self.write(before)
                    self._probed = False

    def reset(self, seed: int) -> None:
        """Seed the generator and restore local tensors."""
        seed_generators(seed)
        with self._masters.inside(), torch.no_grad():
            for name, tensor in self._initial_local.items():
                self._tensors[name].copy_(tensor)

    def forward(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs in evaluation mode."""
        with self._masters.inside(), evaluation_mode(self._model), torch.no_grad():
            try:
                return tuple(output.cpu().numpy() for output in self._call(inputs))
            except (RuntimeError, AssertionError, ValueError, IndexError) as error:
                raise not_accepted("PyTorch", inputs, error, self._model) from error

    @property
    def precision(self) -> str:
        """What the module itself computes with, in evaluation mode."""
        return self._masters.precision

    def forward_by_itself(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Outputs of the module in its own precision, as float32; floats are given in its precision, or in float32 if it wants them so."""
        for name in (self._masters.precision if self._masters else "float32", "float32"):
            with (
                self._masters.inside(),
                self._masters.outside(),
                evaluation_mode(self._model),
                torch.no_grad(),
            ):
                tensors = [self._tensor(array) for array in inputs]
                tensors = [t.to(getattr(torch, name)) if t.is_floating_point() else t for t in tensors]
                try:
                    return tuple(output.float().cpu().numpy() for output in self._returned(tensors))
                except (RuntimeError, AssertionError, ValueError, IndexError) as error:
                    refused = not_accepted("PyTorch", inputs, error, self._model)
        raise refused

    def predict(self, batches: Iterable[Sequence[Array]]) -> Iterator[tuple[Array, ...]]:
        """Outputs in evaluation mode, batch by batch."""
        return map(self.forward, batches)

    def gradients(self, inputs: Sequence[Array], cotangents: Sequence[Array]) -> dict[str, Array]:
        """Gradients in evaluation mode."""
        trainable = self._trainable()
        with self._masters.inside(), evaluation_mode(self._model), plain_gradients(self._model):
            pairs = zip(self._call(inputs), cotangents, strict=True)
            total = torch.stack(
                [(output * self._tensor(cotangent)).sum() for output, cotangent in pairs]
            ).sum()
            if not (trainable and total.requires_grad):
                return {name: torch.zeros_like(tensor).cpu().numpy() for name, tensor in trainable.items()}
            grads = torch.autograd.grad(total, list(trainable.values()), materialize_grads=True)
        return {name: grad.cpu().numpy() for name, grad in zip(trainable, grads, strict=True)}

    def train(self, batches: Iterable[Batch], config: TrainConfig) -> LossSum:
        """One step per batch with the schema's arithmetic."""
        with self._masters.inside():
            loss = self._train(batches, config)
            if not self._probed:
                self._masters.check_range()
        return loss

    def _train(self, batches: Iterable[Batch], config: TrainConfig) -> LossSum:
        trainable = {name: tensor for name, tensor in self._trainable().items() if name not in config.frozen}
        stepper = LocalStepper(trainable, self._model, self._dense, config)
        total, positions = 0.0, 0
        with training_mode(self._model, config, self._calls), stepper.ready():
            for batch in batches:
                with autocast(self._device, config):
                    outputs = self._call(batch.inputs)
                targets = each_of(batch.targets, self._tensor)
                loss, counted = batch_loss([o.float() for o in outputs], targets, config, mean_loss)
                stepper.step(loss)
                total += float(loss.detach()) * int(counted)
                positions += int(counted)
        return LossSum(total, positions)

    @contextmanager
    def lend(self, config: TrainConfig, algorithm: str, *, training: bool = True) -> Iterator[LentModule]:
        """The module; of one that computes weights from others, its plain copy."""
        names = tuple(name for name in self._trainable() if name not in config.frozen)
        with self._masters.inside():
            calls = self._calls if training else None
            with lent(self._model, names, self._device, config, calls, algorithm) as found:
                yield found
            self._tensors = tensors_of(self._model)

    def judge(self, output: Array, targets: Array, config: TrainConfig) -> tuple[float, Array | None]:
        """The loss of an output that is given."""
        value = self._tensor(output).requires_grad_()
        loss, _ = mean_loss(value, self._tensor(targets), config)
        grads = torch.autograd.grad(loss, value, allow_unused=True) if loss.requires_grad else (None,)
        return float(loss.detach()), None if grads[0] is None else grads[0].cpu().numpy()

    def trains_heads(self) -> str:
        """Whatever returns them."""
        return ""

    def autocasts(self) -> str:
        """Whatever is a module."""
        return "it holds half precision itself" if self._masters else ""

    def to_device(self, device: str, replicas: int | None = 1, memory_bytes: int | None = None) -> None:
        """Move the model to ``cpu`` or to a GPU."""
        place = torch.device(device)
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if place.type == "cuda":
            if (place.index or 0) >= count:
                visible = os.environ.get("CUDA_VISIBLE_DEVICES")
                named = f" (CUDA_VISIBLE_DEVICES is {visible})" if visible else ""
                raise AdapterError(
                    f"there is no CUDA device {place.index or 0} for PyTorch {torch.__version__}, which sees {count}{named}",
                    hint="federate.device: cpu, or auto",
                )
            with enough_memory("the model does not fit"):
                torch.cuda.set_device(place.index or 0)
            # cuBLAS keeps 32 MiB for every stream and thread that it has seen on a Hopper; cohorts are no slower with 8.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2")
            if memory_bytes is not None:
                share = memory_bytes / torch.cuda.mem_get_info()[1]
                torch.cuda.set_per_process_memory_fraction(min(share, 1.0))
        self._device, self._stacks, self._limit = device, replicas == LOCKSTEP, memory_bytes
        self._wanted = _REPLICAS if self._stacks else replicas
        self._replicas = self._lockstep = self._data = None
        held = self.read() if self._masters else {}
        with enough_memory("the model does not fit"):
            self._model.to(device)
        _lay_out_images(self._model, torch.channels_last if place.type == "cpu" else torch.contiguous_format)
        self._masters = Masters(self._model)
        with self._masters.inside():
            self._tensors = tensors_of(self._model)
        self.write(held)
        self._initial_local = {name: value.to(device) for name, value in self._initial_local.items()}

    def load_data(self, inputs: Sequence[Array], targets: Array, scaling: Scaling | None) -> None:
        """Keep data on the device."""
        with enough_memory("the training examples do not fit"):
            self._data, self._replicas = cohort.Data.on(self._device, inputs, targets, scaling), None
        self._lockstep = None
        if self._data.targets.is_cuda and self._stacks:
            self._lockstep = Lockstep(self._model, self._floats(), self._dense, self._data, self._limit)

    def device_memory(self) -> tuple[int, int]:
        """By the caching allocator, and by the driver."""
        if torch.device(self._device).type != "cuda":
            return 0, 0
        free, total = torch.cuda.mem_get_info()
        return highest(torch.device(self._device)), total - free

    def begin(self, start: Tensors) -> None:
        """In lockstep, copy it to where the device reads it, while others do something else."""
        if self._lockstep is not None:
            self._lockstep.begin(start)

    def expect(self, steps: Sequence[int], batch: int, count: int = 0) -> None:
        """In lockstep, record steps with room for the largest."""
        if self._lockstep is not None:
            self._lockstep.expect(steps, batch, count)

    def supports(self, config: TrainConfig, clients: Sequence[ClientWork] = ()) -> bool:
        """Any optimizer in lockstep; plain SGD on replicas, if nobody has anything of its own, and nothing drops; one loss in either."""
        one_by_one = self._way.plain and not self._way.options and self._order[0] == 0
        if self._data is None or config.heads or self._masters or not one_by_one or self._calls:
            return False
        if not any(client.own for client in clients) and cohort.suits(self._model, config):
            return True
        return self._lockstep is not None and self._lockstep.takes(clients, config) is None

    def train_apart(
        self, start: Tensors, clients: Sequence[ClientWork], config: TrainConfig
    ) -> Iterator[ClientResult]:
        """Train every part in lockstep."""
        assert self._lockstep is not None
        assert self._data is not None
        if self._data.targets.is_cuda:
            torch.cuda.set_device(self._data.targets.device)
        return self._lockstep.train_apart(start, clients, config)

    def train_cohort(
        self,
        start: Tensors,
        clients: Sequence[ClientWork],
        config: TrainConfig,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> CohortResult:
        """Train every part from ``start``, several side by side."""
        assert self._data is not None
        if self._data.targets.is_cuda:
            torch.cuda.set_device(self._data.targets.device)
        notes: tuple[str, ...] = ()
        if self._lockstep is not None:
            refusal = self._lockstep.takes(clients, config)
            if refusal is None:
                return self._lockstep.train(start, clients, config, meanwhile)
            note = f"participants train on replicas of the model, not in lockstep: {refusal}"
            notes, self._said = () if note == self._said else (note,), note
        if self._replicas is None or self._lying != self._places():
            plan = Plan.from_tensors(self._tensors, tuple(self._description.binding.owners))
            self._replicas = Replicas(self._model, plan, self._dense, self._data, self._wanted)
        result = self._replicas.train(start, clients, config)
        self._lying = self._places()
        meanwhile()
        return replace(result, notes=(*notes, *result.notes))

    def _places(self) -> tuple[int, ...]:
        """Where in memory the model's tensors lie: whoever tries a cohort in lockstep may lay them elsewhere."""
        return tuple(tensor.data_ptr() for tensor in self._tensors.values())

    @property
    def formats(self) -> tuple[str, ...]:
        """PyTorch has one."""
        return ("pytorch",)

    def save(self, path: Path, file_format: str | None = None) -> Path:
        """Write the ``state_dict`` as ``.pt``."""
        del file_format
        path = path.with_name(f"{path.name}.pt")
        torch.save(_for_a_file(self._model.state_dict()), path)
        return path

    def export_onnx(
        self, path: Path, inputs: Sequence[Array], batch_axes: Sequence[int]
    ) -> Mapping[str, str]:
        """Write the module with PyTorch's exporter."""
        with self._masters.inside(), evaluation_mode(self._model):
            tensors = [self._tensor(array) for array in inputs]
            return export_onnx(self._model, self._returned, tensors, batch_axes, path)

    @property
    def lite_format(self) -> str:
        """ExecuTorch's programs."""
        return "pte"

    def export_lite(self, path: Path, inputs: Sequence[Array], batch_axes: Sequence[int]) -> LiteModel:
        """Write the module for ExecuTorch."""
        with self._masters.inside(), evaluation_mode(self._model):
            tensors = [self._tensor(array) for array in inputs]
            return export_lite(self._model, self._returned, tensors, batch_axes, path)

    @cached_property
    def _dense(self) -> tuple[str, ...]:
        """Dense layers whose gradients may stay factors; who does not train need not know."""
        native = self._description.binding.native_inputs(self._example)
        with self._masters.inside(), evaluation_mode(self._model):
            return outer_product.called_once(self._model, self._call, native)

    def _call(self, inputs: Sequence[Array]) -> tuple[torch.Tensor, ...]:
        return self._returned([self._tensor(array) for array in inputs])

    def _returned(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        returned = self._way.call(self._model, list(inputs))
        leaves = output_leaves(returned, is_tensor)
        return tuple(leaves[place][1] for place in self._order)

    def _tensor(self, array: Array) -> torch.Tensor:
        # from_numpy shares memory and warns about read-only arrays; a batch is small next to a step.
        return torch.tensor(array, device=self._device)

    def _floats(self) -> dict[str, torch.Tensor]:
        """What is averaged as floats."""
        shared = self._description.binding.owners
        return {name: t for name, t in self._tensors.items() if name in shared and t.is_floating_point()}

    def _trainable(self) -> dict[str, torch.Tensor]:
        shared = self._description.binding.owners
        return {name: t for name, t in self._tensors.items() if t.requires_grad and name in shared}


def _natives(tensors: Mapping[str, torch.Tensor], halves: Mapping[str, str]) -> dict[str, NativeTensor]:
    """Shape of every tensor, and the dtype that it has outside of the masters."""
    return {
        name: NativeTensor(tuple(t.shape), halves.get(name, str(t.dtype).removeprefix("torch.")))
        for name, t in tensors.items()
    }


def _for_a_file(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous tensors of the processor's, each with a storage of its own size; tied ones stay the same object."""
    found: dict[tuple[Any, ...], torch.Tensor] = {}
    result = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if key not in found:
            moved = tensor.detach().cpu().contiguous()
            # A cohort's tensors are views of one buffer, all of which would be written.
            found[key] = moved if moved.untyped_storage().nbytes() == moved.nbytes else moved.clone()
        result[name] = found[key]
    return result


def _put(tensor: torch.Tensor, array: Array) -> None:
    """Give a tensor the values of an array, which may be read-only: ``from_numpy`` warns about that, though nothing writes into it."""
    if array.flags.writeable:
        tensor.copy_(torch.from_numpy(array))
    elif tensor.device.type == "cpu":
        np.copyto(tensor.detach().numpy(), array, casting="unsafe")
    else:
        tensor.copy_(torch.from_numpy(array.copy()))


def _lay_out_images(model: torch.nn.Module, order: torch.memory_format) -> None:
    """Lay images out pixel by pixel or channel by channel; only strides change.

    A processor's kernels for convolution and pooling are faster pixel by pixel (LEAF's CNN, one thread, a step of 20 images: 21.3
    ms instead of 24.6), a GPU's channel by channel in float32.
    """
    for module in model.modules():
        if type(module) is torch.nn.Conv2d:
            module.weight.data = module.weight.data.to(memory_format=order)
