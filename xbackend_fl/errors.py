"""Every error the toolkit raises on purpose.

    XbflError
    ├── RefusedInput          exit 2: nothing was run, the input must change
    │   ├── ConfigError         a course file, option or model specification is wrong
    │   │   └── CombinedError       several inputs are refused, each for its own reason
    │   ├── AdapterError        a backend is unknown or not installed
    │   ├── UnsupportedError    a model uses what the canonical schema cannot express
    │   ├── MismatchError       two models are not the same function
    │   ├── UnprovenError       exit 1: nothing tells whether two models are the same function
    │   ├── SchemaError         weights belong to another schema
    │   └── FileError           a file is missing, corrupt or would be overwritten
    │       └── FormatRefused     a weight file breaks its format or a limit; the code says which rule
    └── RunFailed             exit 1: the course started and could not finish
        ├── DiskFull            there was no space for the run
        ├── UpdateRefused       an update holds NaN, a wrong shape or a wrong weight
        │   └── Diverged          training or evaluation gave NaN, infinity or more than a mean takes
        └── WorkerDied          a worker process ended or raised

A message says what happened, where, and what was expected and received; ``hint`` says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

from xbackend_fl.text import line

_SHOWN = 20
_WRAPPED = re.compile(r"Exception encountered when calling .*?\x1b\[1m(.*)\x1b\[0m", re.DOTALL)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class XbflError(Exception):
    """Root of the tree.

    Args:
        message: What happened and where, in one sentence.
        hint: What the reader can do about it.
    """

    code: str = "error"
    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  = help: {self.hint}"

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call cls(*args) and lose the hint on its way between processes.
        return _rebuild, (type(self), self.message, self.hint, dict(self.__dict__))


def _rebuild(kind: type[XbflError], message: str, hint: str | None, state: dict[str, object]) -> XbflError:
    error = kind.__new__(kind)
    XbflError.__init__(error, message, hint=hint)
    error.__dict__.update(state)
    return error


def hints_of(hints: Iterable[str | None]) -> str | None:
    """Several hints as one, each once, a line each; ``None`` if there is none."""
    return "\n          ".join(dict.fromkeys(hint for hint in hints if hint)) or None


def shortened(error: BaseException, limit: int = 300) -> str:
    """A framework's own message in one line of at most ``limit`` characters."""
    return line(message_of(error), limit) or type(error).__name__


def raised(who: str, error: BaseException, place: str = "") -> str:
    """What somebody's code raised, in one line: who, the type, in brackets where, and the message."""
    text = shortened(error) if message_of(error).strip() else "no message"
    return f"{who} raised {type(error).__name__}{f' ({place})' if place else ''}: {text}"


@contextmanager
def turned(refusal: Callable[[BaseException], XbflError]) -> Iterator[None]:
    """Whatever a user's code raises becomes an error of ours; the cause stays attached.

    Errors of the toolkit go on as they are, and so does a KeyboardInterrupt: it is the person's at the keyboard.

    Args:
        refusal: Makes the error of what was raised, the wish to end the program included.
    """
    try:
        yield
    except (XbflError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise refusal(error) from error


def message_of(error: BaseException) -> str:
    """An exception's own message; an empty one if its ``__str__`` raises, as one of a user's own can."""
    try:
        # A KeyError writes its message as a string in a program.
        text = str(error.args[0]) if isinstance(error, KeyError) and len(error.args) == 1 else str(error)
        # Keras wraps an exception in a longer one, and prints what it was in bold.
        inner = _WRAPPED.match(text)
        return _COLOURS.sub("", inner[1] if inner else text)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  whatever a user's code raises
        return ""


class RefusedInput(XbflError):  # noqa: N818  the tree is named by what happened
    """The input cannot be used as it is; nothing was run."""

    code = "refused-input"
    exit_code = 2


class ConfigError(RefusedInput):
    """A course file, an option or a model specification is wrong."""

    code = "config"


class CombinedError(ConfigError):
    """Several inputs are refused, each for its own reason.

    Args:
        errors: What is wrong; at least two.
    """

    def __init__(self, errors: Sequence[RefusedInput]) -> None:
        shown = [f"error[{error.code}]: {error}" for error in errors[:_SHOWN]]
        hidden = len(errors) - len(shown)
        more = f", {hidden} of them like these" if hidden else ""
        super().__init__("\n\n".join([*shown, f"{len(errors)} errors{more}; nothing was run."]))
        self.errors = tuple(errors)


@final
class Refusals:
    """Gathers what is wrong with an input, so that all of it is said at once: ``with refused: ...``."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None], RefusedInput] = {}

    def __len__(self) -> int:
        return len(self._found)

    @property
    def errors(self) -> tuple[RefusedInput, ...]:
        """What was gathered, each once, in the order in which it came."""
        return tuple(self._found.values())

    def add(self, error: RefusedInput) -> None:
        """Keep an error, or the errors it consists of; what is there already is not kept twice."""
        for one in error.errors if isinstance(error, CombinedError) else (error,):
            self._found.setdefault((one.message, one.hint), one)

    def __enter__(self) -> None:
        """Begin a block whose refusal is gathered."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        """Keep the refusal that the block ends with, if it does, and go on behind it."""
        if isinstance(error, RefusedInput):
            self.add(error)
            return True
        return False

    def raise_any(self) -> None:
        """Raise what was gathered.

        Raises:
            RefusedInput: The only error, or :class:`CombinedError`.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise CombinedError(self.errors)


class AdapterError(RefusedInput):
    """A backend is unknown, or its framework is not installed."""

    code = "adapter"


class UnsupportedError(RefusedInput):
    """A model holds something that the canonical schema cannot express."""

    code = "unsupported"


class MismatchError(RefusedInput):
    """Two models are not the same function."""

    code = "mismatch"


class UnprovenError(RefusedInput):
    """A map was found, and no probe could have refuted it."""

    code = "unproven"
    exit_code = 1


class SchemaError(RefusedInput):
    """Weights do not belong to the schema they were offered to."""

    code = "schema"


class FileError(RefusedInput):
    """A file is missing, corrupt, or would be overwritten."""

    code = "file"


class FormatRefused(FileError):  # noqa: N818
    """A weight file breaks the rules of its format, or a limit.

    Args:
        code: Stable name of the rule; ``xbfl explain CODE`` says more.
        path: The file.
        message: What was found, in one line.
        details: Figures for programs: ``offset``, ``limit``, ``value``.
    """

    def __init__(self, code: str, path: Path, message: str, **details: int) -> None:
        super().__init__(f"{path}: {message}")
        self.code = code
        self.path = path
        self.reason = message
        self.details = details


class RunFailed(XbflError):  # noqa: N818
    """A course started and could not finish."""

    code = "run-failed"


class DiskFull(RunFailed):
    """There was no space for the run; what is on disk is whole."""

    code = "disk-full"


class UpdateRefused(RunFailed):
    """An update is not fit to enter the mean."""

    code = "update-refused"


class Diverged(UpdateRefused):
    """What training or evaluation gave is NaN, infinite, or larger than any mean takes: it may be the weights that it started from."""

    code = "diverged"


class WorkerDied(RunFailed):
    """A worker process ended or raised; the message carries its traceback."""

    code = "worker-died"
