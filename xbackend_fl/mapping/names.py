"""Which tensor of a file is which tensor of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbackend_fl.adapter import Trainer
from xbackend_fl.canonical import Binding, Kind
from xbackend_fl.canonical.dtypes import HALVES, rounded, widened
from xbackend_fl.errors import RefusedInput, SchemaError
from xbackend_fl.mapping.saved import saved

_MARKS = ("", ":0")
_TRIES = 1000


def naming(
    names: Iterable[str], binding: Binding, trainer: Trainer | None, file_format: str
) -> dict[str, str]:
    """Native name to the name in a file, for every shared tensor of a model.

    Files of PyTorch, and of TensorFlow's checkpoints, name tensors as the model does, perhaps behind a prefix. Keras's
    files number them; then the model itself, filled with values that occur once, is saved in the same format, and the
    values tell where each tensor went.

    Args:
        names: Tensors of the file.
        binding: Binding of the model.
        trainer: The model; without one, names must be the model's own.
        file_format: Format of the file.

    Returns:
        Without the tensors that the framework does not save, such as buffers with ``persistent=False``: the model itself
        has their values.

    Raises:
        SchemaError: A shared tensor is not in the file, or could be several.
    """
    names = list(names)
    wanted = list(binding.owners)
    direct, problems = _by_name(names, wanted)
    if problems and trainer is not None:
        unsaved = not_saved(trainer, wanted, file_format)
        wanted = [name for name in wanted if name not in unsaved]
        direct, problems = _by_name(names, wanted)
    if not problems:
        return direct
    if trainer is None or file_format not in trainer.formats:
        raise SchemaError(
            "the file is not of this model: " + "; ".join(problems[:3]), hint=_advice(problems, names)
        )
    learned = _by_value(trainer, wanted, file_format)
    return _behind_prefix(names, learned)


def _by_name(names: list[str], wanted: list[str]) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    problems: list[str] = []
    ends: dict[str, list[str]] = {}
    for name in names:
        plain = name.removesuffix(_MARKS[1])
        for at, letter in enumerate(plain):
            if letter in "./":
                ends.setdefault(plain[at + 1 :], []).append(name)
    known = set(names)
    for native in wanted:
        exact = [native + mark for mark in _MARKS if native + mark in known]
        candidates = exact or ends.get(native, [])
        if len(candidates) == 1:
            found[native] = candidates[0]
        elif candidates:
            problems.append(f"{native!r} could be {' or '.join(map(repr, candidates[:3]))}")
        else:
            problems.append(f"it has no {native!r}")
    if len(set(found.values())) != len(found):
        problems.append("one tensor of the file would be several of the model")
    return found, problems


def _advice(problems: list[str], names: list[str]) -> str:
    if "could be" in problems[0]:
        return "choose one with --only, such as --only 'state_dict.*'"
    return f"it holds {', '.join(names[:3])}{', …' if len(names) > 3 else ''}; --rename can change names"


def not_saved(trainer: Trainer, wanted: Iterable[str], file_format: str) -> frozenset[str]:
    """Tensors of ``wanted`` that the model's own framework leaves out of its files.

    Args:
        trainer: The model.
        wanted: Native names.
        file_format: The format that is asked about; the framework's usual one, if it is none of its own.

    Raises:
        RefusedInput: A weight that trains is left out: the framework writes something else in its place.
    """
    if not trainer.formats:
        return frozenset()
    own = file_format if file_format in trainer.formats else trainer.formats[0]
    found = _saved_as(trainer, own)
    unsaved = frozenset(name for name in wanted if name not in found)
    binding, schema = trainer.description.binding, trainer.description.schema
    kinds = {native: schema.by_name[name].kind for native, name in binding.owners.items()}
    trains = sorted(name for name in unsaved if kinds.get(name) is Kind.TRAINABLE)
    if not trains:
        return unsaved
    if file_format not in trainer.formats:
        # A file of names and tensors holds them all.
        return frozenset()
    raise RefusedInput(
        f"{trains[0]!r} trains, and is not in a {file_format} file that {binding.backend} writes: Keras merges adapters of enable_lora into "
        "their kernels",
        hint="use .safetensors, .npz or a checkpoint, which hold a kernel and its adapter apart",
    )


def _by_value(trainer: Trainer, wanted: list[str], file_format: str) -> dict[str, str]:
    """Where each tensor goes in a file that the model's own framework writes."""
    found = _saved_as(trainer, file_format)
    return {name: found[name] for name in wanted}


def _saved_as(trainer: Trainer, file_format: str) -> dict[str, str]:
    """Name in a file of every tensor of a model that its own framework saves, learned from values."""
    before, natives = trainer.read(), trainer.description.binding.natives
    generator = np.random.default_rng(0)
    taken: set[tuple[tuple[int, ...], str, bytes]] = set()
    trainer.write(
        {name: _unique(array, natives[name].dtype, generator, taken) for name, array in before.items()}
    )
    try:
        # Of two names of one tensor, the later value is there; of half precision, the file has the rounding.
        marked = {name: rounded(array, natives[name].dtype) for name, array in trainer.read().items()}
        with saved(trainer, file_format) as file:
            places = {_key(file[name]): name for name in reversed(list(file))}
    finally:
        trainer.write(before)
    return {name: places[_key(array)] for name, array in marked.items() if _key(array) in places}


def _unique(
    array: NDArray[Any],
    dtype: str,
    generator: np.random.Generator,
    taken: set[tuple[tuple[int, ...], str, bytes]],
) -> NDArray[Any]:
    if array.dtype.kind in "iu":
        top = min(np.iinfo(array.dtype).max, (1 << 62) - 1)
        return generator.integers(0, top, array.shape, dtype=np.int64, endpoint=True).astype(array.dtype)
    if array.dtype.kind == "b":
        return array
    if dtype not in HALVES:
        return generator.uniform(0.5, 1.5, array.shape).astype(array.dtype)
    # A single number of eight digits occurs again soon: it is drawn until it does not.
    for _ in range(_TRIES):
        scale = 2.0 ** generator.integers(-8, 8, array.shape)
        made = widened(rounded((generator.uniform(1, 2, array.shape) * scale).astype(np.float32), dtype))
        key = _key(rounded(made, dtype))
        if key not in taken or not array.size:
            break
    taken.add(key)
    return made


def _key(array: NDArray[Any]) -> tuple[tuple[int, ...], str, bytes]:
    return array.shape, str(array.dtype), array.tobytes()


def _behind_prefix(names: list[str], learned: Mapping[str, str]) -> dict[str, str]:
    """The learned names as they stand in this file: perhaps behind a prefix, or without theirs."""
    known = set(names)
    if known.issuperset(learned.values()):
        return dict(learned)
    first = next(iter(learned.values()))
    prefixes = [name.removesuffix(first) for name in names if name.endswith(first)]
    fitting = [p for p in prefixes if known.issuperset(p + name for name in learned.values())]
    if len(fitting) > 1:
        raise SchemaError(
            f"the file holds this model several times, behind {' and '.join(map(repr, fitting[:3]))}",
            hint=f"choose one: --only '{fitting[0]}*'",
        )
    if fitting:
        return {native: fitting[0] + name for native, name in learned.items()}
    for at in range(len(first)):
        cut = first[: at + 1]
        if all(n.startswith(cut) for n in learned.values()) and known.issuperset(
            n.removeprefix(cut) for n in learned.values()
        ):
            return {native: name.removeprefix(cut) for native, name in learned.items()}
    missing = [name for name in learned.values() if name not in known]
    layer, _, own = missing[0].rpartition(".")
    parametrized = f"{layer}.parametrizations.{own}.".lstrip(".")
    if any(parametrized in name for name in names):
        raise SchemaError(
            f"the file holds {missing[0]!r} in parts, under a parametrization (weight norm, spectral norm), and no file of those is read",
            hint=f"save the weights without it: torch.nn.utils.parametrize.remove_parametrizations(model.{layer}, {own!r}), then state_dict()",
        )
    raise SchemaError(
        f"the file is not of this model: it has no {missing[0]!r}",
        hint=f"it holds {', '.join(names[:3])}{', …' if len(names) > 3 else ''}",
    )
