"""What the server knows for certain: which update of which silo was accepted, on disk before anybody relies on it.

An accepted frame is synced to the spool, then gets its row; the row is what counts. A server that starts again merges the spool of
the unfinished round and asks the others; one (round, silo) has one row, so nothing is merged twice. The spool of a round stays for one round more, since
nobody knows before whether silos can train from what it gave (:meth:`Ledger.take_out`); its rows stay for good: they are the receipts, and the history of
who took part.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

from xbackend_fl.errors import FileError, RunFailed, UpdateRefused
from xbackend_fl.federation.protocol.message import Message
from xbackend_fl.federation.server.outliers import TIMES, Outlier
from xbackend_fl.report import Participation
from xbackend_fl.rounds import RunFolder
from xbackend_fl.text import line
from xbackend_fl.writing import atomic_write, explain_unwritable

_TABLES = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS accepted (
    round INTEGER, silo TEXT, base TEXT NOT NULL, identity TEXT NOT NULL, num_examples INTEGER NOT NULL,
    bytes INTEGER NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (round, silo));
CREATE TABLE IF NOT EXISTS missed (
    round INTEGER, silo TEXT, outcome TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS stood_out (
    round INTEGER, silo TEXT, times REAL NOT NULL, how TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS leapt (
    round INTEGER, silo TEXT, times REAL NOT NULL, how TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS losses (round INTEGER PRIMARY KEY, loss REAL NOT NULL);
CREATE TABLE IF NOT EXISTS taken_out (
    round INTEGER, silo TEXT, base TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (round, silo));
"""


_READ = """
SELECT key, value FROM about LIMIT 0;
SELECT round, silo, base, identity, num_examples, bytes, seconds FROM accepted LIMIT 0;
SELECT round, silo, outcome, reason, at FROM missed LIMIT 0;
SELECT round, silo, times, how FROM stood_out LIMIT 0;
SELECT round, silo, times, how FROM leapt LIMIT 0;
SELECT round, loss FROM losses LIMIT 0;
SELECT round, silo, base, reason FROM taken_out LIMIT 0;
"""
"""What is asked later: a ledger with other tables is none."""


@final
class Ledger:
    """Updates of one run.

    Args:
        folder: Of the run; ``ledger.sqlite``, ``spool`` and ``spool-before`` are made in it.

    Attributes:
        folder: The same.

    Raises:
        FileError: ``ledger.sqlite`` or a spool is something else, or damaged.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder.path
        self._spool = self.folder / "spool"
        self._before = self.folder / "spool-before"
        for place in (self._spool, self._before):
            with explain_unwritable(place):
                place.mkdir(parents=True, exist_ok=True)
        self._path = folder.ledger
        hint = "restore it, or start a new run"
        rows: sqlite3.Connection | None = None
        try:
            # Autocommit: every row is a transaction of its own, and survives a loss of power.
            rows = sqlite3.connect(self._path, isolation_level=None)
            rows.execute("PRAGMA journal_mode = WAL")
            rows.execute("PRAGMA synchronous = FULL")
            rows.executescript(_TABLES)
            rows.executescript(_READ)
            rows.execute("INSERT OR IGNORE INTO about VALUES ('run', ?)", (uuid.uuid4().hex,))
            (found,) = rows.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.Error as error:
            if rows is not None:
                rows.close()
            raise FileError(f"{self._path} is no ledger: {error}", hint=hint) from error
        if found != "ok":
            rows.close()
            raise FileError(f"{self._path} is damaged: {line(found)}", hint=hint)
        self._rows = rows

    def _ask(self, question: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Rows, or a row that is put down.

        Raises:
            RunFailed: A page of the ledger is damaged.
            sqlite3.OperationalError: There is no space, or the disk is broken.
        """
        try:
            return self._rows.execute(question, values)
        except (sqlite3.OperationalError, sqlite3.IntegrityError):
            raise
        except sqlite3.DatabaseError as error:
            raise RunFailed(
                f"{self._path} is damaged: {error}", hint="restore it, or start a new run"
            ) from error

    @property
    def run(self) -> str:
        """Identifies the run to silos: answers of another run are not taken."""
        (value,) = self._ask("SELECT value FROM about WHERE key = 'run'").fetchone()
        return str(value)

    def begin(self, number: int, base: str) -> Iterator[tuple[str, Message, int]]:
        """Start or go on with a round.

        What was accepted of this round from other weights, or of later rounds, is forgotten: the run was set back to an earlier checkpoint.
        The updates of the round before go to ``spool-before``, all that is older goes: what lies here is at most two rounds' updates.

        Args:
            number: The round.
            base: Digest of the weights that it starts from.

        Returns:
            The updates of this round that are on disk, in the order in which they were accepted. A damaged one is forgotten: no receipt
            was given for it, so its silo still has it.
        """
        self._ask("DELETE FROM accepted WHERE round > ? OR (round = ? AND base != ?)", (number, number, base))
        found = self._ask(
            "SELECT silo, identity, num_examples FROM accepted WHERE round = ? ORDER BY rowid", (number,)
        ).fetchall()
        rows = self._ask("SELECT identity FROM accepted WHERE round = ?", (number - 1,))
        kept = {f"{identity}.xbf": self._before for (identity,) in rows}
        kept |= {f"{identity}.xbf": self._spool for _, identity, _ in found}
        for path in (*self._spool.iterdir(), *self._before.iterdir()):
            if path.name not in kept:
                path.unlink()
            elif path.parent != kept[path.name]:
                path.replace(kept[path.name] / path.name)
        for silo, identity, num_examples in found:
            try:
                update = Message.from_bytes(self._place(identity).read_bytes(), silo)
            except (OSError, UpdateRefused):
                self.forget(number, silo)
                continue
            yield silo, update, num_examples

    def accepted(self, number: int) -> dict[str, str]:
        """Identities of the updates of a round, by silo: its receipts."""
        rows = self._ask("SELECT silo, identity FROM accepted WHERE round = ? ORDER BY rowid", (number,))
        return {str(silo): str(identity) for silo, identity in rows}

    def receipts(self, before: int) -> dict[str, str]:
        """Identities of the latest update of every silo in rounds before one: it may have taken part long ago."""
        text = "SELECT silo, identity, MAX(round) FROM accepted WHERE round < ? GROUP BY silo ORDER BY silo"
        return {str(silo): str(identity) for silo, identity, _ in self._ask(text, (before,))}

    def accept(
        self, number: int, silo: str, base: str, update: Message, num_examples: int, seconds: float
    ) -> None:
        """Put an update on disk; when this returns, nothing but the loss of the disk loses it.

        Raises:
            OSError: There is no space, or the disk is broken. The update is not accepted.
        """
        with atomic_write(self._place(update.identity)) as path:
            path.write_bytes(update.frame)
        row = (number, silo, base, update.identity, num_examples, len(update.frame), seconds)
        try:
            self._ask("INSERT INTO accepted VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.OperationalError as error:
            raise OSError(str(error)) from error

    def forget(self, number: int, silo: str) -> None:
        """Accept another update of a silo for the round that is going on."""
        self._ask("DELETE FROM accepted WHERE round = ? AND silo = ?", (number, silo))

    def missed(self, number: int, silo: str, outcome: str, reason: str) -> None:
        """Remember that a silo's update did not enter the mean of a round: ``refused`` or ``late``."""
        row = (number, silo, outcome, reason, time.time())
        self._ask("INSERT INTO missed VALUES (?, ?, ?, ?, ?)", row)

    def stand_out(
        self, number: int, found: Iterable[Outlier], leaps: Iterable[Outlier], loss: float | None
    ) -> None:
        """Remember which updates of a round stand out, and what most lost in training, instead of what was known of it before.

        Args:
            number: The round.
            found: What stands out.
            leaps: What is so far off that it may be done once.
            loss: What most lost.
        """
        with self._at_once():
            for table in ("stood_out", "leapt", "losses"):
                self._ask(f"DELETE FROM {table} WHERE round >= ?", (number,))  # noqa: S608  names of ours
            if loss is not None:
                self._ask("INSERT INTO losses VALUES (?, ?)", (number, loss))
            for one in found:
                self._ask("INSERT INTO stood_out VALUES (?, ?, ?, ?)", (number, one.silo, one.times, one.how))
            for one in leaps:
                self._ask("INSERT INTO leapt VALUES (?, ?, ?, ?)", (number, one.silo, one.times, one.how))

    def stood_out(self, number: int) -> list[Outlier]:
        """The updates that stood out in the mean of a round, the one that did so most first."""
        rows = self._ask(
            "SELECT silo, times, how FROM stood_out WHERE round = ? ORDER BY times DESC, silo", (number,)
        )
        return [Outlier(str(silo), float(times), str(how)) for silo, times, how in rows]

    def stood_out_before(self, number: int) -> list[Outlier]:
        """Who leapt in a round before this one, or was longer than the others in two, with the round in words; the longest first."""
        rows = self._ask(
            """
            SELECT silo, round, MAX(times), how FROM (
                SELECT * FROM leapt WHERE round < ?
                UNION ALL SELECT * FROM stood_out WHERE round < ? AND silo IN (
                    SELECT silo FROM stood_out WHERE round < ? AND times >= ?
                    GROUP BY silo HAVING COUNT(DISTINCT round) > 1))
            GROUP BY silo ORDER BY MAX(times) DESC, silo
            """,
            (number, number, number, TIMES),
        )
        return [Outlier(str(silo), float(times), f"{how} in round {at}") for silo, at, times, how in rows]

    def leapt(self, number: int) -> dict[str, int]:
        """Silos whose update leapt in a round before this one, with the last such round."""
        rows = self._ask("SELECT silo, MAX(round) FROM leapt WHERE round < ? GROUP BY silo", (number,))
        return {str(silo): int(at) for silo, at in rows}

    def largest_loss(self, number: int) -> float | None:
        """The largest training loss that was usual in any round up to this one."""
        (found,) = self._ask("SELECT MAX(loss) FROM losses WHERE round <= ?", (number,)).fetchone()
        return None if found is None else float(found)

    def take_out(self, number: int, silo: str, base: str, reason: str) -> None:
        """Take an accepted update out of a round that was gone on from, all of it or nothing; later rounds are forgotten.

        Args:
            number: The round.
            silo: Whose update it is.
            base: Digest of the weights that the round started from.
            reason: Why, in one line.
        """
        with self._at_once():
            self._ask(
                "DELETE FROM accepted WHERE round > ? OR (round = ? AND silo = ?)", (number, number, silo)
            )
            self._ask("DELETE FROM missed WHERE round > ?", (number,))
            self._ask("INSERT OR REPLACE INTO taken_out VALUES (?, ?, ?, ?)", (number, silo, base, reason))
            self.missed(number, silo, "refused", reason)

    def taken_out(self, number: int, base: str) -> dict[str, str]:
        """Silos whose update was taken out of a round from these weights, with the reason."""
        rows = self._ask(
            "SELECT silo, reason FROM taken_out WHERE round = ? AND base = ? ORDER BY rowid", (number, base)
        )
        return {str(silo): str(reason) for silo, reason in rows}

    def offenders(self) -> dict[str, int]:
        """Silos of which an update was taken out, with the last such round."""
        rows = self._ask("SELECT silo, MAX(round) FROM taken_out GROUP BY silo")
        return {str(silo): int(number) for silo, number in rows}

    def participation(self) -> list[Participation]:
        """How every silo took part, by name."""
        rows = self._ask(
            """
            SELECT silo, SUM(accepted), MAX(num_examples), SUM(refused), SUM(late), SUM(bytes), AVG(seconds) FROM (
                SELECT silo, 1 AS accepted, num_examples, 0 AS refused, 0 AS late, bytes, seconds FROM accepted
                UNION ALL
                SELECT silo, 0, 0, outcome = 'refused', outcome = 'late', 0, NULL FROM missed)
            GROUP BY silo ORDER BY silo
            """
        )
        return [
            Participation(silo, accepted, num_examples, refused, late, size, seconds or 0.0)
            for silo, accepted, num_examples, refused, late, size, seconds in rows
        ]

    def close(self) -> None:
        """Release the file; safe to call twice."""
        self._rows.close()

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """All rows of the block, or none."""
        self._ask("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._ask("ROLLBACK")
            raise
        self._ask("COMMIT")

    def _place(self, identity: str) -> Path:
        return self._spool / f"{identity}.xbf"
