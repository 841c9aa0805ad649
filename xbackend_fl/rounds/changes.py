"""What may change when a run goes on, and what makes it another course."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from xbackend_fl.course import Course, complete
from xbackend_fl.course.settings import flat
from xbackend_fl.errors import ConfigError
from xbackend_fl.objects import key_of
from xbackend_fl.text import line

MAY_CHANGE = (
    "rounds",
    "keep_checkpoints",
    "early_stopping.patience",
    "early_stopping.min_delta",
    "early_stopping.metric",
    "data.cache",
    "opset",
    "onnx_every",
    "federate.on_failure",
    "federate.workers",
    "federate.device",
    "federate.device_memory_mib",
    "federate.replicas",
    "federate.memory",
    "federate.state_memory_mib",
    "deployment.role",
    "deployment.name",
    "deployment.data_path",
    "deployment.address",
    "deployment.keys",
    "deployment.serve.engine",
    "deployment.quorum",
    "deployment.join_timeout_s",
    "deployment.round_timeout_s",
    "deployment.max_examples",
    "deployment.over_selection",
    "deployment.max_restarts",
)
"""Keys that say how long, where and with whom a course runs, not what it computes; and participants that are added at the end."""

_SHOWN = 200
_LISTED = 20


def require_same(kept: Course, asked: Course, *, grows: bool) -> bool:
    """Whether a run goes on with other settings, of those that may change.

    Args:
        kept: The course as the run folder has it.
        asked: The course with which it is to go on.
        grows: Whether participants may be added whose data are not their own: silos of a deployed course bring theirs, a simulation
            would share the examples out anew.

    Raises:
        ConfigError: Others differ; the message lists them, then and now.
    """
    then, now = flat(complete(kept)), flat(complete(asked))
    differing = list(_differing(then, now, asked, grows=grows))
    if not differing:
        return then != now
    more = f"\n  and {len(differing) - _LISTED} more" if len(differing) > _LISTED else ""
    raise ConfigError(
        "the run was begun with another course:\n" + "\n".join(differing[:_LISTED]) + more,
        hint="leave these as they were, or start a new run; docs/guides/courses.md, What may change, lists the others",
    )


def _differing(then: dict[str, Any], now: dict[str, Any], asked: Course, *, grows: bool) -> Iterator[str]:
    for key in dict.fromkeys((*then, *now)):
        before, after = _compared(then.get(key)), _compared(now.get(key))
        if before == after or any(fnmatchcase(key, pattern) for pattern in MAY_CHANGE):
            continue
        # A participant is its position too: examples are shared out, and cohorts drawn, in this order.
        section, _, rest = key.partition(".")
        added = section == "participants" and f"{section}.{rest.partition('.')[0]}.name" not in then
        if added and (grows or all(p.data is not None for p in asked.participants)):
            continue
        if _follows(key, then, now):
            continue
        yield f"  {line(key, _SHOWN)}: {_shown(before)} → {_shown(after)}"


def _follows(key: str, then: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a setting is there, or is not, because its section names something else now, which is said already."""
    section = key.rpartition(".")[0]
    named = {f"{section}.name", f"{section}.kind"} & then.keys() & now.keys()
    return (key in then) != (key in now) and any(then[name] != now[name] for name in named)


def _compared(value: Any) -> Any:
    """Objects of Python are pickled otherwise by another process: what counts of them is what they are for."""
    return key_of(value) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    return "nothing" if value is None else line(value, _SHOWN)
