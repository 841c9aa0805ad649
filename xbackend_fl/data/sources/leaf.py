"""``leaf:FOLDER``: LEAF's JSON files of many users."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from xbackend_fl.data.dataset import Dataset, Splits
from xbackend_fl.data.leaf import Users, read_leaf, split_users
from xbackend_fl.data.source import Reading
from xbackend_fl.data.targets import of_one


@final
class _Leaf:
    is_code = False
    keys = frozenset({"splits", "deduplicate"})

    def splits(self, place: str, how: Reading, *, anew: bool = False) -> Splits:
        del anew
        users = _read(place, how)
        return split_users(users, how.splits, how.seed)

    def own(self, place: str, how: Reading, *, anew: bool = False) -> Dataset:
        del anew
        users = _read(place, how)
        return Dataset((users.inputs,), users.targets)


SOURCE = _Leaf()


def _read(place: str, how: Reading) -> Users:
    users = read_leaf(how.base / place, deduplicate=how.deduplicate)
    return replace(users, targets=of_one(f"leaf:{place}", users.targets, how.heads))
