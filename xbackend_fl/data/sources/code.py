"""``FILE_OR_MODULE:CALLABLE``: code of the user's, which returns data in any form."""

from __future__ import annotations

from typing import final

from xbackend_fl.data.dataset import SPLITS, Dataset, Splits
from xbackend_fl.data.handed import dataset_of, owners_of, parts_of
from xbackend_fl.data.source import Reading
from xbackend_fl.errors import ConfigError, Refusals
from xbackend_fl.locate import call


@final
class _Code:
    is_code = True
    keys = frozenset({"on_error"})

    def splits(self, place: str, how: Reading, *, anew: bool = False) -> Splits:
        return load_splits(place, how, anew=anew)

    def own(self, place: str, how: Reading, *, anew: bool = False) -> Dataset:
        return load_dataset(place, how, anew=anew)


SOURCE = _Code()


def load_splits(text: str, how: Reading, *, anew: bool = False) -> Splits:
    """Call ``FILE_OR_MODULE:CALLABLE`` and check what it returns.

    Args:
        text: The callable. It returns a mapping from ``train``, ``validation`` and ``test`` to
            ``(inputs, targets)``, where inputs is an array, a sequence or a dict of arrays in ONNX layout, or to a data set or loader of a
            framework; and perhaps from ``owners`` to who made each training example.
        how: Folder that relative files start from, and the inputs that the model takes.
        anew: Execute the callable's file again, as another process would.

    Raises:
        ConfigError: It returns something else, or a part is empty or uneven; all mistakes at once.
    """
    found = call(text, how.base, anew=anew)
    if not isinstance(found, dict) or {str(name) for name in found} - {"owners"} != {*SPLITS}:
        raise ConfigError(
            f"{text} must return a dict with the keys 'train', 'validation' and 'test', "
            f"received {sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__}",
            hint="nothing was returned: end the function with return" if found is None else None,
        )
    refused = Refusals()
    splits = parts_of(text, {name: found[name] for name in SPLITS}, how, refused)
    owners = None
    if found.get("owners") is not None and "train" in splits:
        with refused:
            owners = owners_of(text, found["owners"], len(splits["train"]))
    refused.raise_any()
    return Splits(**splits, owners=owners)


def load_dataset(text: str, how: Reading, *, anew: bool = False) -> Dataset:
    """Call ``FILE_OR_MODULE:CALLABLE`` for one participant's ``(inputs, targets)``.

    Args:
        text: The callable.
        how: Folder that relative files start from, and the inputs that the model takes.
        anew: Execute the callable's file again, as another process would.

    Raises:
        ConfigError: It returns something else, or the data are empty or uneven.
    """
    return dataset_of(text, call(text, how.base, anew=anew), how)
