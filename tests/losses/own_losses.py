"""Losses of a user's own: good ones, wrong ones, and what the message said to do about each wrong one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
from torch.nn import functional as F


def focal(outputs: Any, targets: Any, ops: Any, gamma: float = 2.0) -> Any:
    each = ops.softmax_cross_entropy(outputs, targets)
    return (1.0 - ops.exp(-each)) ** gamma * each


class LogCosh:
    """A class whose settings are its own arguments."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def each(self, outputs: Any, targets: Any, ops: Any) -> Any:
        size = ops.abs(outputs - targets) / self.scale
        return size + ops.log1p(ops.exp(-2.0 * size)) - 0.6931471805599453


def naive(outputs: Any, targets: Any, ops: Any) -> Any:
    shares = ops.exp(outputs)
    return -ops.log(ops.gather(shares, targets) / ops.sum(shares))


def naive_cured(outputs: Any, targets: Any, ops: Any) -> Any:
    return ops.softmax_cross_entropy(outputs, targets)


def raises(outputs: Any, targets: Any, ops: Any) -> Any:
    del outputs, ops
    return {}[str(targets.shape)]


def of_two(outputs: Any, targets: Any) -> Any:
    return outputs - targets


def of_two_cured(outputs: Any, targets: Any, ops: Any) -> Any:
    return ops.softmax_cross_entropy(outputs, targets)


def of_classes(outputs: Any, targets: Any, ops: Any) -> Any:
    del targets
    return ops.log_softmax(outputs)


def of_classes_cured(outputs: Any, targets: Any, ops: Any) -> Any:
    return -ops.gather(ops.log_softmax(outputs), targets)


def number(outputs: Any, targets: Any, ops: Any) -> Any:
    del outputs, targets, ops
    return 3.0


def number_cured(outputs: Any, targets: Any, ops: Any) -> Any:
    return 3.0 * ops.softmax_cross_entropy(outputs, targets)


def steps(outputs: Any, targets: Any, ops: Any) -> Any:
    return ops.where(ops.gather(outputs, targets) > 0, 0.0, 1.0)


def steps_cured(outputs: Any, targets: Any, ops: Any) -> Any:
    return ops.maximum(1.0 - ops.gather(outputs, targets), 0.0)


class WithoutEach:
    """No formula."""


def torch_smooth(outputs: Any, targets: Any) -> Any:
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


def torch_each(outputs: Any, targets: Any) -> Any:
    return F.cross_entropy(outputs, targets, label_smoothing=0.1, reduction="none")


def torch_sum(outputs: Any, targets: Any) -> Any:
    return F.cross_entropy(outputs, targets, label_smoothing=0.1, reduction="sum")


def torch_cut(outputs: Any, targets: Any) -> Any:
    hard = F.cross_entropy(outputs, targets, reduction="none")
    soft = F.cross_entropy(outputs, targets, label_smoothing=0.1, reduction="none")
    return hard + (soft - hard).detach()


def torch_twice(outputs: Any, targets: Any) -> Any:
    each = F.cross_entropy(outputs, targets)
    return 2 * each - each.detach()


def torch_bit_more(outputs: Any, targets: Any) -> Any:
    each = F.cross_entropy(outputs, targets, reduction="none")
    return 1.05 * each - 0.05 * each.detach()


def torch_normed(outputs: Any, targets: Any) -> Any:
    """As one cuts the largest off for the sake of numbers, and half of the outputs too."""
    half = torch.cat([outputs[:, :2].detach(), outputs[:, 2:]], 1)
    return F.cross_entropy(half, targets)


def torch_hinge(outputs: Any, targets: Any) -> Any:
    """Full of corners."""
    return F.multi_margin_loss(outputs, targets, reduction="none")


def torch_l1(outputs: Any, targets: Any) -> Any:
    wanted = F.one_hot(targets, outputs.shape[1]).float()
    return (outputs - wanted).abs().mean(1)


def torch_huge(outputs: Any, targets: Any) -> Any:
    return 1e4 + 1e3 * F.cross_entropy(outputs, targets)


def torch_sharp(outputs: Any, targets: Any) -> Any:
    return F.cross_entropy(outputs / 0.02, targets)


def torch_clipped(outputs: Any, targets: Any) -> Any:
    return F.cross_entropy(outputs.clamp(-2, 2), targets, reduction="none").clamp(max=30)


def keras_twice(outputs: Any, targets: Any) -> Any:
    wanted = tf.one_hot(targets, outputs.shape[-1])
    each = keras.losses.categorical_crossentropy(wanted, outputs, from_logits=True)
    return 2 * each - tf.stop_gradient(each)


def torch_numpy(outputs: Any, targets: Any) -> Any:
    return torch.tensor(np.square(outputs.detach().numpy()).mean()) + targets.sum()


def keras_smooth(outputs: Any, targets: Any) -> Any:
    wanted = tf.one_hot(targets, outputs.shape[-1])
    return keras.losses.categorical_crossentropy(wanted, outputs, from_logits=True, label_smoothing=0.1)


def keras_less(outputs: Any, targets: Any) -> Any:
    wanted = tf.one_hot(targets, outputs.shape[-1])
    return keras.losses.categorical_crossentropy(wanted, outputs, from_logits=True, label_smoothing=0.09)


def numpy_smooth(outputs: Any, targets: Any) -> Any:
    shifted = outputs - outputs.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -0.9 * np.take_along_axis(logs, targets[:, None], 1)[:, 0] - 0.1 * logs.mean(1)


def numpy_mean(outputs: Any, targets: Any) -> Any:
    return numpy_smooth(outputs, targets).mean()
