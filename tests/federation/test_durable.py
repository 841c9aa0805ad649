"""What survives a crash: the ledger and the spool of the server, the outbox of a silo; and signatures over what they hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.federation.campaign import undisturbed, write_course
from tests.federation.light import Linear
from tests.federation.local import LocalLink
from xbackend_fl.errors import FileError, RunFailed, UpdateRefused
from xbackend_fl.events import Event, Noted
from xbackend_fl.federation import DeploymentEngine, Dispatcher, Ledger, Message, Silo
from xbackend_fl.federation.credentials import Keys, make_keys
from xbackend_fl.federation.job import Job
from xbackend_fl.federation.protocol.signatures import SERVER, Signatures
from xbackend_fl.federation.silo.outbox import Outbox
from xbackend_fl.rounds import RunFolder, run_with
from xbackend_fl.simulation import resume_run


def update(number: int, silo: str, value: float = 1.0) -> Message:
    fields = {"run": "r", "round": number, "base": f"b{number}", "silo": silo}
    return read(Message("trained", fields, {"w": np.full(5, value, np.float32)}))


def read(message: Message) -> Message:
    return Message.from_bytes(message.to_bytes(), "a silo")


def test_what_was_accepted_is_there_after_a_crash(tmp_path: Path) -> None:
    with closing(Ledger(RunFolder(tmp_path))) as ledger:
        run = ledger.run
        assert list(ledger.begin(1, "b1")) == []
        for silo in ("oslo", "berlin"):
            ledger.accept(1, silo, "b1", update(1, silo), 7, 0.5)
    # No close is needed: every row is on disk when accept returns.
    with closing(Ledger(RunFolder(tmp_path))) as ledger:
        assert ledger.run == run
        found = list(ledger.begin(1, "b1"))
        assert [(silo, size) for silo, _, size in found] == [("oslo", 7), ("berlin", 7)]
        assert [m.identity for _, m, _ in found] == list(ledger.accepted(1).values())
        assert list(ledger.begin(2, "b2")) == []
        assert list((tmp_path / "spool").iterdir()) == []
        assert sorted(ledger.accepted(1)) == ["berlin", "oslo"]


def test_a_silo_has_one_update_a_round(tmp_path: Path) -> None:
    with closing(Ledger(RunFolder(tmp_path))) as ledger:
        ledger.accept(1, "oslo", "b1", update(1, "oslo"), 7, 0.5)
        with pytest.raises(Exception, match="UNIQUE"):
            ledger.accept(1, "oslo", "b1", update(1, "oslo", 2.0), 7, 0.5)
        ((_, kept, _),) = ledger.begin(1, "b1")
        assert kept.arrays["w"][0] == 1.0


def test_a_run_that_was_set_back(tmp_path: Path) -> None:
    """Somebody deleted a checkpoint: the round is trained again from other weights."""
    with closing(Ledger(RunFolder(tmp_path))) as ledger:
        for number in (1, 2, 3):
            ledger.accept(number, "oslo", f"b{number}", update(number, "oslo"), 7, 0.5)
        assert list(ledger.begin(2, "another")) == []
        assert ledger.accepted(1)
        assert not ledger.accepted(2)
        assert not ledger.accepted(3)


def test_a_damaged_update_in_the_spool_is_asked_for_again(tmp_path: Path) -> None:
    with closing(Ledger(RunFolder(tmp_path))) as ledger:
        for silo in ("oslo", "berlin"):
            ledger.accept(1, silo, "b1", update(1, silo), 7, 0.5)
        place = next((tmp_path / "spool").glob(f"{update(1, 'oslo').identity}.xbf"))
        place.write_bytes(place.read_bytes()[:-40])
        assert [silo for silo, _, _ in ledger.begin(1, "b1")] == ["berlin"]
        assert list(ledger.accepted(1)) == ["berlin"]
        ledger.accept(1, "oslo", "b1", update(1, "oslo"), 7, 0.5)


def test_what_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"something else entirely" * 100)
    with pytest.raises(FileError, match="is no ledger"):
        Ledger(RunFolder(tmp_path))


def test_a_deployed_run_is_not_simulated_on(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=2, silos=1)
    undisturbed(course, tmp_path / "run")
    with pytest.raises(FileError, match="the run of a deployed course") as caught:
        resume_run(tmp_path / "run")
    assert "xbfl serve" in str(caught.value.hint)


class Crashes(RuleBasedStateMachine):
    """A server and a ledger against a dictionary: whatever is accepted is there once, after any number of restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
        self.ledger = Ledger(RunFolder(self.folder))
        self.round = 1
        self.model: dict[str, str] = {}

    @rule(silo=st.sampled_from("abc"), value=st.integers(0, 2))
    def accept(self, silo: str, value: int) -> None:
        message = update(self.round, silo, float(value))
        if silo in self.model:
            with pytest.raises(Exception, match="UNIQUE"):
                self.ledger.accept(self.round, silo, f"b{self.round}", message, 3, 0.1)
        else:
            self.ledger.accept(self.round, silo, f"b{self.round}", message, 3, 0.1)
            self.model[silo] = message.identity

    @rule()
    def crash(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(RunFolder(self.folder))

    @rule()
    def orphan(self) -> None:
        """A crash between the file and its row."""
        (self.folder / "spool" / f"{'0' * 64}.xbf").write_bytes(b"half")

    @rule()
    def advance(self) -> None:
        self.round += 1
        self.model = {}

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        found = {s: m.identity for s, m, _ in self.ledger.begin(self.round, f"b{self.round}")}
        assert found == self.model
        assert self.ledger.accepted(self.round) == self.model
        assert len(list((self.folder / "spool").iterdir())) == len(set(self.model.values()))

    def teardown(self) -> None:
        self.ledger.close()


Crashes.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestCrashes = Crashes.TestCase


def test_an_answer_is_kept_until_its_receipt(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    kept = outbox.keep(update(4, "oslo"), {"w": np.ones(5, np.float32)})
    again = Outbox(tmp_path)
    found = again.answer("r", 4, "b4")
    assert found is not None
    assert found.frame == kept.frame
    assert again.answer("r", 4, "another") is None
    assert again.answer("another", 4, "b4") is None
    assert again.answer("r", 5, "b5") is None
    again.receipt("somebody else's")
    assert again.answer("r", 4, "b4") is not None
    assert again.carried(None) == again.carried("another") == {}
    again.receipt(kept.identity)
    assert again.answer("r", 4, "b4") is None
    np.testing.assert_array_equal(again.carried(kept.identity)["w"], np.ones(5))


def test_what_an_update_carries_on_counts_as_long_as_the_update_does(tmp_path: Path) -> None:
    """Some are not accepted, and the latest may be taken out again after its receipt."""
    outbox = Outbox(tmp_path)
    kept = {n: outbox.keep(update(n, "oslo"), {"w": np.full(5, n, np.float32)}) for n in (1, 2)}
    outbox.receipt(kept[1].identity)
    kept |= {n: outbox.keep(update(n, "oslo"), {"w": np.full(5, n, np.float32)}) for n in (3, 4, 5, 6)}
    for certain in (1, 6, 5):
        outbox.receipt(kept[certain].identity)
        found = Outbox(tmp_path).carried(kept[certain].identity)
        np.testing.assert_array_equal(found["w"], np.full(5, certain))
    outbox.keep(update(6, "oslo", 7.0), {"w": np.full(5, 7, np.float32)})
    assert len(list(tmp_path.glob("*.carried"))) == 3
    assert outbox.carried(kept[6].identity) == {}
    np.testing.assert_array_equal(outbox.carried(kept[5].identity)["w"], np.full(5, 5))


def test_what_is_missing_or_another_updates_is_refused_where_the_course_needs_it(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, keeps_state=True)
    one, two = (outbox.keep(update(n, "oslo"), {"w": np.full(5, n, np.float32)}) for n in (1, 2))
    first, second = (next(tmp_path.glob(f"*.{kept.identity}.carried")) for kept in (one, two))
    assert outbox.carried(None) == {}
    shutil.copy(first, second)
    with pytest.raises(FileError, match="kept from another update"):
        outbox.carried(two.identity)
    second.unlink()
    with pytest.raises(FileError, match="does not hold what this silo kept from its update"):
        outbox.carried(two.identity)
    # A loop of the user's own may have nothing to keep.
    three = outbox.keep(update(3, "oslo"), {})
    assert outbox.carried(three.identity) == {}


def test_a_silo_asked_twice_trains_once(tmp_path: Path) -> None:
    course = write_course(tmp_path / "course", rounds=1, silos=1)
    name = course.participants[0].name
    learner = Linear(name, course)
    silo = Silo(course, name, learner, out=tmp_path / "silo")
    request = asked(silo, learner)
    first = silo.reply(request.to_bytes())
    assert silo.reply(request.to_bytes()) == first
    assert learner.trained == 1
    other = Linear(name, course)
    # Another process: it has bound nothing, and binds its model again from what it remembers.
    assert Silo(course, name, other, out=tmp_path / "silo").reply(request.to_bytes()) == first
    assert other.trained == 0
    fresh = Silo(course, name, Linear(name, course), out=tmp_path / "fresh").reply(request.to_bytes())
    assert Message.from_bytes(fresh, name).kind == "unbound"


def asked(silo: Silo, learner: Linear) -> Message:
    evidence = silo.answer(Message("evidence"))
    bind = Message("bind", evidence.fields, {n: a for n, a in evidence.arrays.items() if n[0] == "0"})
    assert silo.answer(read(bind)).kind == "bound"
    base = learner.initial()
    fields: dict[str, Any] = {"run": "r", "round": 1, "base": base.digest, "receipts": {}, "evaluate": None}
    fields |= {"payload": {"kind": "float32", "share": 0.1}, "fingerprint": base.fingerprint}
    return Message("train", fields, base)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signing") / "keys"
    make_keys(folder, (), ["oslo", "berlin"])
    return folder


def test_what_one_side_signs_the_other_opens(keys: Path) -> None:
    server = Keys(keys / "server").server_signatures()
    oslo = Keys(keys / "silos" / "oslo").silo_signatures("oslo")
    frame = update(1, "oslo").frame
    assert server.verify(oslo.sign(frame), "oslo") == frame
    assert oslo.verify(server.sign(frame), SERVER) == frame
    assert Signatures().verify(oslo.sign(frame), "oslo") == frame


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda sealed, _: sealed[:-64], "without a signature"),
        (lambda sealed, _: sealed[:-1], "63 bytes behind it"),
        (lambda sealed, _: sealed[:-1] + bytes([sealed[-1] ^ 1]), "did not sign"),
        (lambda sealed, other: other[:-64] + sealed[-64:], "did not sign"),
        (lambda _, other: other, "did not sign"),
    ],
)
def test_forgeries(forge: Callable[[bytes, bytes], bytes], reason: str, keys: Path) -> None:
    """A signature is of one frame and one silo."""
    server = Keys(keys / "server").server_signatures()
    oslo = Keys(keys / "silos" / "oslo").silo_signatures("oslo")
    berlin = Keys(keys / "silos" / "berlin").silo_signatures("berlin")
    sealed, other = oslo.sign(update(1, "oslo").frame), berlin.sign(update(2, "oslo").frame)
    with pytest.raises(UpdateRefused, match=reason):
        server.verify(forge(sealed, other), "oslo")
    with pytest.raises(UpdateRefused, match="nobody knows a signing key of paris"):
        server.verify(sealed, "paris")


def test_an_unsigned_silo_does_not_come_in(tmp_path: Path, keys: Path) -> None:
    course = write_course(tmp_path, rounds=1, silos=1, more="deployment: {join_timeout_s: 0.5}\n")
    name = course.participants[0].name
    make_keys(tmp_path / "keys", (), [name])
    server = Keys(tmp_path / "keys" / "server").server_signatures()
    impostor = Keys(keys / "silos" / "oslo").silo_signatures("oslo")
    hello = server.sign(Message("hello").to_bytes())
    for signatures, reason in ((Signatures(), "without a signature"), (impostor, "did not sign")):
        silo = Silo(course, name, Linear(name, course), signatures=signatures)
        dispatcher = Dispatcher(LocalLink([silo], hello), server)
        engine = DeploymentEngine(course, dispatcher, Ledger(RunFolder(tmp_path / reason)))
        with pytest.raises(RunFailed, match=reason):
            engine.prepare(lambda _: None)
        engine.close()


def test_a_process_that_ended_is_seen(tmp_path: Path) -> None:
    """However it ends: the lock goes with it."""
    job = Job("course", "out", home=str(tmp_path))
    assert not job.started
    script = f"import os\nfrom xbackend_fl.federation.job import Job\nwith Job.read({job.write()!r}).alive():\n os.kill(os.getpid(), 9)"
    with job.alive():
        assert (job.started, job.ended) == (True, False)
    assert job.ended
    subprocess.run([sys.executable, "-c", script], check=False)
    assert job.ended
    assert job.failure() is None
    job.fail(RunFailed("no more silos", hint="look for them"))
    assert str(job.failure()) == "no more silos\n  = help: look for them"
    assert Job.read(job.write()) == job


def test_another_payload_in_the_middle_of_a_round(tmp_path: Path) -> None:
    """What is on disk in another encoding is asked for again, and the silo does not answer with what it kept."""
    for payload in ("float32", "int8"):
        more = f"deployment: {{payload: {payload}}}\n"
        course = write_course(tmp_path / "course", rounds=1, silos=1, more=more)
        name = course.participants[0].name
        learner = Linear(name, course)
        silo = Silo(course, name, learner, out=tmp_path / "silo")
        folder = RunFolder(tmp_path / "run")
        with closing(DeploymentEngine(course, Dispatcher(LocalLink([silo])), Ledger(folder))) as engine:
            first = engine.prepare(lambda _: None)
            outcome = engine.train_round(1, first.initial, {}, [name], lambda _: None)
        assert (outcome.mean.count, learner.trained) == (1, 1)
        with closing(Ledger(folder)) as ledger:
            ((_, kept, _),) = ledger.begin(1, first.initial.digest)
        assert kept.fields["payload"]["kind"] == payload


def test_a_silo_whose_data_changed_in_the_middle_of_a_run_says_so(tmp_path: Path) -> None:
    """Once, and its digest stays with it."""
    course = write_course(tmp_path / "course", rounds=2, silos=3)
    folder = RunFolder.create(course, tmp_path / "run")
    name = course.participants[1].name

    def go_on(rounds: int, data: str) -> list[str]:
        events: list[Event] = []
        silos = [
            Silo(
                course,
                p.name,
                Linear(p.name, course),
                out=tmp_path / p.name,
                data=data if p.name == name else "a",
            )
            for p in course.participants
        ]
        longer = course.model_copy(update={"rounds": rounds})
        with closing(DeploymentEngine(longer, Dispatcher(LocalLink(silos)), Ledger(folder))) as engine:
            run_with(engine, longer, folder, folder.latest(), events.append)
        return [event.note for event in events if isinstance(event, Noted) and "data" in event.note]

    assert go_on(2, "a") == []
    assert go_on(4, "b") == [f"round 3: silo {name!r} trains on other data than it did before in this run"]
    assert go_on(6, "b") == []
    for place in (tmp_path / "run").rglob("*.xbf"):
        assert b"digest" not in place.read_bytes()
    (tmp_path / name / "state" / "data.json").write_text("[1", encoding="utf-8")
    assert go_on(7, "c") == []
