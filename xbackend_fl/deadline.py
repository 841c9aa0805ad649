"""How long something may take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Deadline:
    """A moment on a clock that nobody sets.

    Attributes:
        end: Seconds of ``time.monotonic``.
    """

    end: float

    @staticmethod
    def within(seconds: float) -> Deadline:
        """So many seconds from now."""
        return Deadline(time.monotonic() + seconds)

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return time.monotonic() > self.end

    def later(self, seconds: float) -> Deadline:
        """The same, so many seconds later."""
        return Deadline(self.end + seconds)
