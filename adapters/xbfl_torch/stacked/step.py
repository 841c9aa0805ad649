"""One step of all participants: the model's own code, run once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from xbackend_fl.adapter.contract import TrainConfig
from xbackend_fl.adapter.outputs import output_leaves
from xbfl_torch.describe import is_tensor
from xbfl_torch.losses import mean_loss, weight_of
from xbfl_torch.stacked import devices
from xbfl_torch.stacked.dense import Dense
from xbfl_torch.stacked.dropout import Drawing
from xbfl_torch.stacked.layers import StackedLayers
from xbfl_torch.stacked.lifting import lifted
from xbfl_torch.steps import training_mode


class Losses(NamedTuple):
    """What a step follows.

    Attributes:
        means: Over the positions that count, ``[participants]``.
        counted: How many these are, ``[participants]``.
    """

    means: torch.Tensor
    counted: torch.Tensor


def losses(
    model: torch.nn.Module,
    own: Mapping[str, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    targets: torch.Tensor,
    counts: torch.Tensor,
    config: TrainConfig,
    dense: Dense,
    drawing: Drawing,
) -> Losses:
    """Losses of all participants.

    Args:
        model: In training mode.
        own: Tensors of which every participant has its own, ``[participants, *shape]``, by name.
        inputs: ``[participants, batch, ...]``.
        targets: The same.
        counts: Examples of each batch that count, ``[participants]``.
        config: The loss.
        dense: How dense layers compute.
        drawing: Draws the masks of dropout.
    """
    shared = {name: item.weight for name, item in dense.additions.items()}

    def one(
        tensors: Any, values: Any, wanted: Any, count: Any, seed: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with StackedLayers(count, dense, Drawing(seed, drawing.step)):
            _, output = output_leaves(
                functional_call(model, {**tensors, **shared}, tuple(values)), is_tensor
            )[0]
        if _is_plain(output, config):
            return lifted(_cross_entropy, count, output, wanted), count
        means, weights, numbers = vmap(_loss_of_one(config))(output, wanted)
        real = torch.arange(len(means), device=means.device) < count
        weight = torch.where(real, weights, 0).sum()
        total = torch.where(real & (weights > 0), means * weights, 0.0).sum()
        return total / torch.where(weight > 0, weight, 1), torch.where(real, numbers, 0).sum()

    return Losses(*vmap(one, randomness="error")(dict(own), list(inputs), targets, counts, drawing.seeds))


def _is_plain(output: torch.Tensor, config: TrainConfig) -> bool:
    """Whether a kernel has this loss: of classes, one position each."""
    kernels = devices.kernels("losses", output)
    plain = config.loss.kernel == "softmax_cross_entropy" and config.ignore_index is None and output.ndim == 2
    return plain and kernels is not None and kernels.fits(output)


def _cross_entropy(counts: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    means: torch.Tensor = _CrossEntropy.apply(scores, classes, counts)  # type: ignore[no-untyped-call]
    return means


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Any, classes: Any, counts: Any) -> Any:
        kernels = devices.kernels("losses", scores)
        assert kernels is not None
        means, grad = kernels.cross_entropy(scores.contiguous(), classes.contiguous(), counts)
        ctx.save_for_backward(grad)
        return means

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.saved_tensors[0] * grads[0][:, None, None], None, None


def _loss_of_one(config: TrainConfig) -> Any:
    """The loss of one example, what it weighs, and how many positions of it count: that of a batch is the mean over all these."""

    def loss(output: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch = output[None], wanted[None]
        mean, count = mean_loss(*batch, config)
        weight = weight_of(*batch, config, count)
        return mean, _tensor(weight, output), _tensor(count, output)

    return loss


def _tensor(number: int | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return number if isinstance(number, torch.Tensor) else torch.full((), number, device=like.device)


@contextmanager
def lockstep(model: torch.nn.Module, config: TrainConfig) -> Iterator[None]:
    """Steps of all participants belong inside: the schema's settings of training."""
    # Of the kernels for attention vmap knows the one that is made of products.
    with ExitStack() as stack, training_mode(model, config, corrected=False), sdpa_kernel(SDPBackend.MATH):
        # Of what vmap runs for one participant after the other: the result is the same.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
        for module in model.modules():
            if isinstance(module, torch.nn.RNNBase):
                # It would ask where in memory its weights lie.
                stack.callback(module.__dict__.pop, "flatten_parameters", None)
                module.__dict__["flatten_parameters"] = lambda: None
        yield


@contextmanager
def places(model: torch.nn.Module) -> Iterator[list[str]]:
    """Inside, the names of the modules that are being called, the innermost last."""
    called: list[str] = [""]
    with ExitStack() as stack:
        for name, module in model.named_modules():

            def enter(*_: Any, name: str = name) -> None:
                called.append(name)

            def leave(*_: Any) -> None:
                called.pop()

            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        yield called
