"""What a weight file holds beside a model's own weights: what may be left out of it, and what belongs to another model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from xbackend_fl.adapter import Trainer
from xbackend_fl.canonical import Binding
from xbackend_fl.errors import SchemaError
from xbackend_fl.mapping.saved import saved
from xbackend_fl.text import shown_names
from xbackend_fl.weights import Archive

_OF_TRAINING = re.compile(r"[._]*(optim|(lr_?)?schedulers?|grad_?scaler|scaler|save_counter)", re.IGNORECASE)
"""Begins a part of the name of what an optimizer, a schedule or a loss scale keeps."""

_PARTS = re.compile(r"[./]")
_MARK = ":0"


def left_out(source: Archive, binding: Binding, trainer: Trainer, places: Mapping[str, str]) -> list[str]:
    """Tensors of a file that a model's shared weights are not made of, and that may be left out.

    These are the model's own (counters, states of random generators, second names of a tensor), and those of optimizers and schedules.

    Args:
        source: The file.
        binding: Binding of the model.
        trainer: The model.
        places: Native name to the name in the file of every tensor that is taken.

    Raises:
        SchemaError: There are others: the file is of a model that has more.
    """
    taken = {*places.values()}
    rest = [name for name in source if name not in taken]
    if not rest:
        return []
    own = {*binding.natives, *binding.local, *_written(trainer, source.format)}
    strange = [name for name in rest if not _is_of_training(name) and not _is_own(name, own, taken)]
    if strange:
        raise SchemaError(
            f"{source.path} holds {shown_names(strange)}, for which this model has no place",
            hint="build the model that the file is of; or take a part of the file on purpose: "
            f"xbfl convert {source.path} part.safetensors {_chosen(taken, strange)}",
        )
    return rest


def _written(trainer: Trainer, file_format: str) -> list[str]:
    """Names in a file that the model's own framework writes."""
    if not trainer.formats:
        return []
    own = file_format if file_format in trainer.formats else trainer.formats[0]
    with saved(trainer, own) as file:
        return list(file)


def _is_of_training(name: str) -> bool:
    return any(_OF_TRAINING.match(part) for part in _PARTS.split(name))


def _is_own(name: str, own: Iterable[str], taken: Iterable[str]) -> bool:
    """Whether a name is one of the model's, perhaps behind a prefix that other tensors have too, or without theirs."""
    plain = name.removesuffix(_MARK)
    for each in own:
        if plain == each or (each.endswith(plain) and each[-len(plain) - 1] in "./"):
            return True
        prefix = plain.removesuffix(each)
        if prefix != plain and any(other.startswith(prefix) for other in taken):
            return True
    return False


def _chosen(taken: Iterable[str], strange: Iterable[str]) -> str:
    """Options of ``xbfl convert`` that choose what is taken, by the shortest beginnings that nothing else has."""
    chosen: list[str] = []
    for name in sorted(taken):
        if any(name.startswith(each) for each in chosen):
            continue
        begins = [name[: found.end()] for found in _PARTS.finditer(name)]
        free = [each for each in begins if not any(other.startswith(each) for other in strange)]
        chosen.append(next(iter(free), name))
    return " ".join(f"--only '{each}{'*' if _PARTS.match(each[-1]) else ''}'" for each in chosen)
