"""Course files that are damaged, hostile or mistaken: one message with a place, within a second, and never a traceback."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.machine import within
from xbackend_fl import load_course
from xbackend_fl.course import dump
from xbackend_fl.errors import ConfigError, RefusedInput

NET = "def build():\n    return None\n"
GOOD = """\
name: scans
rounds: 2
models: {torch: net.py:build, tensorflow: net.py:build}
input: ["1,3,8,8"]
data: {source: "net.py:build", partition: {kind: dirichlet, alpha: 0.5}}
participants:
  - {name: osaka, backend: torch}
  - {name: lyon, backend: tensorflow}
training:
  optimizer: {name: adam, lr: 1e-3}
  clip_norm: 5
federate: {server: {name: fedavg}, cohort: 2}
"""
PAIR = "- {name: osaka, backend: torch}\n  - {name: lyon, backend: tensorflow}"
SECOND_S = 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("courses")
    (made / "net.py").write_text(NET)
    # What other tests left in memory is not looked through while a refusal is timed.
    gc.collect()
    gc.freeze()
    return made


def refusal(folder: Path, content: str | bytes, *overrides: str) -> str:
    """What is said of a course, which must be refused within a second."""
    path = folder / "bad.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_course(path, overrides)
    assert within(time.process_time() - began, SECOND_S)
    text = str(caught.value)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert len(text) < 10_000
    return text


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def levels(count: int, each: int) -> str:
    names = "abcdefghijklmnopqrstuvwxyz"
    lines = [f"a: &a [{', '.join(['1'] * each)}]"]
    lines += [f"{names[i]}: &{names[i]} [{', '.join([f'*{names[i - 1]}'] * each)}]" for i in range(1, count)]
    return "\n".join(lines)


FILES: dict[str, tuple[str | bytes, str]] = {
    "latin-1": (GOOD.replace("scans", "scän").encode("latin-1"), "byte 0xe4 in line 1, column 9"),
    "utf-16": (GOOD.encode("utf-16"), "save the file as UTF-8"),
    "nul": (GOOD.replace("scans", "sc\0ans"), "bad.yaml:1:9"),
    "escape": (GOOD.replace("scans", "\x1b[2Jscans"), "bad.yaml:1:7"),
    "empty": ("", "received nothing"),
    "only a comment": ("# nothing\n", "received nothing"),
    "list": ("- a\n", "received a list"),
    "text": ("just a text\n", "received a text"),
    "two documents": (GOOD + "---\nname: other\n", "bad.yaml:13:1"),
    "unclosed": ("name: [unclosed\n", "not YAML"),
    "tab": ("name:\n\trounds: 1\n", "not YAML"),
    "many lists": ("name: " + "[" * 900 + "]" * 900, "nested more than 32 levels deep"),
    "very many lists": ("name: " + "[" * 1_000_000, "nested more than 32 levels deep"),
    "many maps": ("name: " + "{a: " * 900 + "1" + "}" * 900, "nested more than 32 levels deep"),
    "many blocks": ("\n".join(f"{' ' * i}a:" for i in range(900)), "nested more than 32 levels deep"),
    "alias to itself": ("name: &a [*a]\n", "`*a` is a part of itself"),
    "alias in a map to itself": ("name: &a {b: {c: *a}}\n", "bad.yaml:1:18"),
    "alias to nothing": ("name: *a\n", "is not defined above"),
    "nine levels of aliases": (levels(9, 9), "more than 75000 values"),
    "deep by aliases": (
        "a: &a [[[[[[[[[[1]]]]]]]]]]\nb: &b [[[[[[[[[[*a]]]]]]]]]]\nc: [[[[[[[[[[[[[[*b]]]]]]]]]]]]]]",
        "nested more than 32",
    ),
    "merged bomb": (
        "a: &a {k: 1}\nb: &b {<<: [*a, *a], l: *a}\n"
        + "".join(
            f"x{i}: &x{i} [{', '.join([f'*x{i - 1}' if i else '*b'] * 9)}]\n" for i in range(8)
        ),
        "more than 75000 values",
    ),
    "ten megabytes of keys": ("".join(f"k{i}: 1\n" for i in range(1_000_000)), "more than 4 MiB"),
    "four megabytes of keys": ("".join(f"k{i}: 1\n" for i in range(300_000)), "more than 75000 values"),
    "many keys": ("".join(f"k{i}: 1\n" for i in range(30_000)), "30006 errors; nothing was run"),
    "many duplicates": ("k: 1\n" * 30_000, "stands here a second time"),
    "a key of a megabyte": ("k" * 1_000_000 + ": 1\n", "not YAML"),
    "a long text key": (GOOD + '"' + "k" * 900 + '": 1\n', "unknown key `kkk"),
    "a duplicate": (GOOD + "rounds: 3\n", "bad.yaml:13:1"),
    "a duplicate below": (changed("lr: 1e-3", "lr: 1e-3, lr: 1e-2"), "bad.yaml:10:37"),
    "a duplicate in a list": (changed("{name: osaka,", "{name: osaka, name: x,"), "bad.yaml:7:19"),
    "a duplicate in quotes": (GOOD + '"rounds": 3\n', "it stands in line 2 already"),
    "a list as key": (GOOD + "[a, b]: 3\n", "a key is a text, received a list"),
    "a map as key": (GOOD + "? {a: 1}\n: 3\n", "a key is a text, received a mapping"),
    "a number as key": (GOOD + "7: 3\n", "unknown key `7`"),
    "nothing as key": (GOOD + "~: 3\n", "unknown key `~`"),
    "a switch as key": (GOOD + "true: 3\n", "unknown key `true`"),
    "merging a list": (GOOD + "<<: [1, 2]\n", "`<<` takes mappings, received a number"),
    "merging a text": (GOOD + "<<: text\n", "bad.yaml:13:5"),
    "an object": (changed("scans", "!!python/object/apply:os.getcwd []"), "tag"),
    "a set": (changed("scans", "!!set {a}"), "bad.yaml:1:7"),
    "a binary": (changed("scans", "!!binary aGVsbG8="), "bad.yaml:1:7"),
    "a time": (changed("scans", "!!timestamp 2026-11-28"), "bad.yaml:1:7"),
    "own tag": (changed("scans", "!mine scans"), "bad.yaml:1:7"),
    "a wrong tag": (changed("rounds: 2", "rounds: !!int two"), "bad.yaml:2:9"),
    "5,000 digits": (changed("rounds: 2", "rounds: " + "7" * 5000), "a whole number of 5000 digits"),
    "5,000 digits as text": (changed("rounds: 2", f"rounds: '{'7' * 5000}'"), "bad.yaml:2:9"),
    "5,000 hex digits": (changed("rounds: 2", "rounds: 0x" + "f" * 5000), "bad.yaml:2:9"),
    "5,000 digits as key": (GOOD + "9" * 900 + ": 1\n", "a whole number of 900 digits"),
    "a large seed": (GOOD + "seed: 999999999999999999999\n", "bad.yaml:13:7"),
    "an impossible date": (changed("scans", "2026-13-45 25:61"), "bad.yaml:1:7"),
    "sexagesimal": (changed("rounds: 2", "rounds: 1:30"), "bad.yaml:2:9"),
    "a switch for a number": (changed("rounds: 2", "rounds: true"), "input is a switch, and this is none"),
    "yes for a number": (changed("rounds: 2", "rounds: yes"), "bad.yaml:2:9"),
    "a number for a text": (changed("scans", "7"), "stands in quotes"),
    "nothing for a number": (changed("rounds: 2", "rounds:"), "bad.yaml:2:8"),
    "nothing for a section": (changed("{server: {name: fedavg}, cohort: 2}", ""), "`federate`"),
    "a huge number of participants": (
        changed(PAIR, "{torch: 1000000}"),
        "at most 100000 participants by number, not 1000000",
    ),
    "twenty thousand participants": (
        changed(PAIR, "\n  ".join(f"- {{name: p{i}, backend: torch}}" for i in range(20_000))),
        "a course has at most 10000 participants, and this is the 10001st",
    ),
    "the same in one line": (
        changed("\n  " + PAIR, " [" + ", ".join(f"{{name: p{i}, backend: torch}}" for i in range(20_000)) + "]"),
        "a course has at most 10000 participants, and this is the 10001st",
    ),
    "a list of names": (
        changed("\n  " + PAIR, " [" + ", ".join(f"p{i}" for i in range(20_000)) + "]"),
        "a course has at most 10000 participants",
    ),
    "one more, as aliases": (
        changed("\n  " + PAIR, " [&a {name: p, backend: torch}, " + ", ".join(["*a"] * 10_000) + "]"),
        "a course has at most 10000 participants",
    ),
    "a map of many backends": (
        changed("\n  " + PAIR, " {" + ", ".join(f"b{i}: 1" for i in range(20_000)) + "}"),
        "a course has at most 10000 participants, not 20000",
    ),
    "ten thousand backends that were misspelt": (
        changed(PAIR, "\n  ".join(f"- {{name: p{i}, backend: trch}}" for i in range(10_000))),
        "did you mean `torch`?",
    ),
    "ten thousand files that are missing": (
        changed(PAIR, "\n  ".join(f"- {{name: p{i}, backend: torch, data: 'no.py:load'}}" for i in range(10_000))),
        "10000 errors; nothing was run",
    ),
    "too many inputs": (
        changed('["1,3,8,8"]', "[" + ", ".join(["'1,3'"] * 80_000) + "]"),
        "more than 75000 values, aliases written out; this one is under `input`",
    ),
    "no participants": (
        changed(PAIR, "{torch: -5, tensorflow: 3}"),
        "bad.yaml:7:11",
    ),
    "half a participant": (
        changed(PAIR, "{torch: 0.5}"),
        "bad.yaml:7:11",
    ),
    "a duplicate participant": (changed("name: lyon", "name: osaka"), "bad.yaml:8:12"),
    "but for capitals": (changed("name: lyon", "name: OSAKA"), "bad.yaml:8:12"),
    "a participant without a model": (changed("backend: tensorflow", "backend: tensorflwo"), "bad.yaml:8:27"),
    "a look-alike backend": (changed("backend: tensorflow", "backend: tensorflwo"), "did you mean `tensorflow`?"),
    "an unknown backend": (GOOD.replace("tensorflow", "mxnet"), "bad.yaml:3:31"),
    "an empty shape": (changed('"1,3,8,8"', '"0,0"'), "bad.yaml:4:9"),
    "no shape": (changed('"1,3,8,8"', '"1,3,8,8", "1;2"'), "bad.yaml:4:20"),
    "a shape of another dtype": (changed('"1,3,8,8"', '"float99:1"'), "no dtype 'float99'"),
    "a huge shape": (changed('"1,3,8,8"', '"99999,99999,9999"'), "bad.yaml:4:9"),
    "65 axes": (changed('"1,3,8,8"', '"' + ",".join("1" * 65) + '"'), "bad.yaml:4:9"),
    "a huge axis": (changed('"1,3,8,8"', '"' + "9" * 5000 + '"'), "bad.yaml:4:9"),
    "a large cohort": (changed("cohort: 2", "cohort: 3"), "bad.yaml:12:44"),
    "a long name": (changed("scans", "s" * 5000), "bad.yaml:1:7"),
    "a long participant": (changed("osaka", "s" * 5000), "bad.yaml:7:12"),
    "a name above": (changed("osaka", "../osaka"), "bad.yaml:7:12"),
    "two dots": (changed("osaka", ".."), "bad.yaml:7:12"),
    "a name with a slash": (changed("osaka", "a/b"), "bad.yaml:7:12"),
    "a name with a backslash": (changed("osaka", "a\\b"), "bad.yaml:7:12"),
    "a device": (changed("osaka", "NUL"), "no name of a file on every system"),
    "a device with an ending": (changed("osaka", "com1.txt"), "no name of a file on every system"),
    "a last dot": (changed("osaka", "osaka."), "no name of a file on every system"),
    "a name with a space": (changed("osaka", "osaka east"), "bad.yaml:7:12"),
    "a name with a line": (changed("osaka", '"osaka\\n"'), "bad.yaml:7:12"),
    "a name that clears the screen": (changed("osaka", '"\\e[2Josaka"'), "bad.yaml:7:12"),
    "a look-alike letter": (changed("osaka", "\u043esaka"), "bad.yaml:7:12"),
    "right to left": (changed("osaka", '"\\u202eosaka"'), "bad.yaml:7:12"),
    "half a character": (changed("osaka", '"\\ud800"'), "bad.yaml:7:15"),
    "a model with a long path": (changed("torch: net.py", f"torch: {'n' * 5000}.py"), "bad.yaml:3:17"),
    "a model with a NUL": (changed("torch: net.py:build", 'torch: "net\\0.py:build"'), "bad.yaml:3:17"),
    "a model of nothing": (changed("torch: net.py:build", "torch: ''"), "bad.yaml:3:17"),
    "a negative split": (changed('data: {source: "net.py:build"', 'data: {source: "net.py:build", splits: [0.9, -0.1, 0.2]'), "bad.yaml:5:46"),
    "switches for splits": (changed('data: {source: "net.py:build"', 'data: {source: "net.py:build", splits: [true, 1, 1]'), "bad.yaml:5:40"),
}  # fmt: skip
NUMBERS = {
    "training.optimizer.lr": "training:\n  optimizer: {lr: VALUE}\n",
    "training.clip_norm": "training:\n  clip_norm: VALUE\n",
    "training.optimizer.momentum": "training:\n  optimizer: {name: momentum, momentum: VALUE}\n",
    "training.optimizer.weight_decay": "training:\n  optimizer: {weight_decay: VALUE}\n",
    "federate.server.tau": "federate:\n  server: {name: fedadam, tau: VALUE}\n",
    "data.partition.alpha": None,
    "data.scale.mean": None,
    "data.splits.0": None,
    "deployment.join_timeout_s": "deployment: {join_timeout_s: VALUE}\n",
    "deployment.over_selection": "deployment: {over_selection: VALUE}\n",
    "rounds": None,
    "seed": None,
}
WITH = {
    "training.optimizer.momentum": ("training.optimizer={name: momentum}",),
    "training.optimizer.alpha": ("training.optimizer={name: rmsprop}",),
    **dict.fromkeys(["federate.server.tau", "federate.server.beta1"], ("federate.server={name: fedadam}",)),
    "data.partition.sigma": ("data.partition={kind: quantity}",),
}
"""What a course says so that a key is one."""
SETTINGS = {
    "rounds": "is not KEY=VALUE",
    "=3": "is not KEY=VALUE",
    "a..b=1": "is not KEY=VALUE",
    ".rounds=1": "is not KEY=VALUE",
    "rounds.=1": "is not KEY=VALUE",
    "name=[": "not YAML",
    "name={": "not YAML",
    "name='x": "not YAML",
    "name=\x1b[2J": "the character",
    "name=\udcff": "the character",
    "name=x\0": "the character",
    "rounds=2026-13-45": "`rounds`",
    f"rounds={'7' * 5000}": "a whole number of 5000 digits",
    f"name={'[' * 5000}": "nested more than 32 levels deep",
    "name=&a [*a]": "is a part of itself",
    "name=--- a\n--- b": "a second document",
    "name={a: 1, a: 2}": "stands here a second time",
    "rounds=!!python/name:os.system": "tag",
    "participants.9.name=x": "has the entries 0 to 1, not '9'",
    "participants.-1.name=x": "has the entries 0 to 1, not '-1'",
    "participants.².name=x": "has the entries 0 to 1",
    f"participants.{'9' * 5000}.name=x": "has the entries 0 to 1",
    "participants.name=x": "has the entries 0 to 1, not 'name'",
    "participants=[]": "needs 1 at least",
    "participants={torch: 99999999}": "at most 100000 participants",
    "participants.0.name=lyon": "two participants are called 'lyon'",
    "participants.0.backend=mxnet": "which has no model",
    "name.first=x": "name is not a section",
    f"{'a.' * 5000}b=1": "more than 32 keys",
    "training.lrr=1": "unknown key `training.lrr`",
    "nowhere.at.all=1": "unknown key `nowhere`",
    "input=['0,0']": "an axis is 0 long",
    "input.0='1;2'": "is not a shape",
    "input.1='1,2'": "has the entries 0 to 0",
    "training.optimizer.lr=.inf": "finite number",
    "data.splits=[.nan, 1, 1]": "finite number",
    "federate.cohort=9": "federate.cohort is 9",
    "models.torch=nowhere.py:build": "no such file",
    "models.jax=net.py:build": "unknown backend `jax`",
    "rounds=": "`rounds`",
    "rounds=true": "input is a switch",
}  # fmt: skip


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", FILES)
def test_files(folder: Path, case: str) -> None:
    content, words = FILES[case]
    text = refusal(folder, content)
    assert words in text
    assert "nothing was run" in text or "must be a mapping" in text


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999"])
@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_that_are_none(folder: Path, key: str, value: str) -> None:
    text = (
        refusal(folder, GOOD, *WITH.get(key, ()), f"{key}={value}")
        if "splits" not in key
        else refusal(folder, GOOD, f"data.splits=[{value}, 1, 1]")
    )
    assert f"`{key}`: input should be" in text or "splits" in key
    assert "--> --set " in text
    if (written := NUMBERS[key]) is not None:
        section = written.split(":")[0]
        kept = "".join(
            f"{block}"
            for block in GOOD.splitlines(keepends=True)
            if not block.startswith((section, "  optimizer", "  clip"))
        )
        text = refusal(folder, kept + written.replace("VALUE", value))
        assert f"`{key}`" in text
        assert "bad.yaml:1" in text


TOO_LARGE_OR_SMALL = {
    **dict.fromkeys(
        ["training.optimizer.lr", "training.optimizer.eps", "training.clip_norm"], ("1e300", "1e-60")
    ),
    **dict.fromkeys(["federate.server.lr", "federate.server.tau"], ("1e300", "1e-60")),
    **dict.fromkeys(["training.optimizer.weight_decay", "data.partition.alpha"], ("1e300", "1e39")),
    **dict.fromkeys(["training.optimizer.momentum", "training.optimizer.beta2"], ("0.99999999999",)),
    **dict.fromkeys(["training.optimizer.alpha", "federate.server.beta1"], ("0.99999999999",)),
    "data.partition.sigma": ["1e300", "51"],
    "data.scale.mean": ["1e300", "-1e300"],
    "data.scale.std": ["1e300", "1e-60"],
    "data.scale.divide": ["1e300", "1e-60"],
}


@pytest.mark.parametrize("key", TOO_LARGE_OR_SMALL)
def test_numbers_that_float32_does_not_have(folder: Path, key: str) -> None:
    for value in TOO_LARGE_OR_SMALL[key]:
        text = refusal(folder, GOOD, *WITH.get(key, ()), f"{key}={value}")
        assert f"`{key}`: input should be" in text
        assert f"--> --set {key}={value}" in text


@pytest.mark.parametrize("beside", ["divide: 1e-30", "mean: 1e30"])
def test_numbers_of_a_scale_that_are_none_together(folder: Path, beside: str) -> None:
    scale = f'"net.py:build", scale: {{std: 1e-30, {beside}}}'
    text = refusal(folder, GOOD.replace('"net.py:build"', scale))
    assert "together they are 1e+60, which is inf in float32" in text
    assert "bad.yaml:5:" in text


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda text: ascii(text)[:40])
def test_settings(folder: Path, setting: str) -> None:
    text = refusal(folder, GOOD, setting)
    assert SETTINGS[setting] in text
    assert "--set" in text


def test_a_later_setting_is_the_one_that_is_named(folder: Path) -> None:
    text = refusal(folder, GOOD, "training.batch_size=4", "training={batch_size: 0}", "rounds=3")
    assert "--> --set training={batch_size: 0}" in text


def test_what_yaml_1_1_takes_for_something_else(folder: Path) -> None:
    path = folder / "words.yaml"
    path.write_text(
        "\ufeff"
        + GOOD.replace("osaka", "no")
        .replace("lyon", "2026-11-28")
        .replace("scans", "1e3x")
        .replace("rounds: 2", "rounds: 010")
        + "seed: 0x10\n",
        encoding="utf-8",
    )
    course = load_course(path, ["training.dropout=off"])
    assert [p.name for p in course.participants] == ["no", "2026-11-28"]
    assert (course.rounds, course.seed, course.training.dropout) == (10, 16, False)


def test_aliases_and_merged_mappings(folder: Path) -> None:
    path = folder / "merged.yaml"
    path.write_text(
        changed(
            "  - {name: osaka, backend: torch}\n  - {name: lyon, backend: tensorflow}",
            "  - &first {name: osaka, backend: torch}\n  - {<<: *first, name: lyon}",
        )
    )
    assert [(p.name, p.backend) for p in load_course(path).participants] == [
        ("osaka", "torch"),
        ("lyon", "torch"),
    ]


@given(
    name=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z").filter(lambda text: not text.endswith(".")),
    lr=st.floats(min_value=1e-300, max_value=1e300),
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_run_keeps_is_read_as_it_was(folder: Path, name: str, lr: float) -> None:
    path = folder / "kept.yaml"
    path.write_text(GOOD)
    try:
        course = load_course(path, [f'participants.0.name="{name}"', f"training.optimizer.lr={lr!r}"])
    except ConfigError:
        return
    path.write_text(dump(course), encoding="utf-8")
    again = load_course(path)
    assert again == course.model_copy(update={"models": again.models, "data": again.data})


def test_the_bounds_hold_the_largest_course(folder: Path) -> None:
    """As a run keeps it: every participant with data of its own."""
    path = folder / "large.yaml"
    path.write_text(GOOD)
    course = load_course(path, ["participants={torch: 10000}"])
    own = [p.model_copy(update={"data": "net.py:build"}) for p in course.participants]
    path.write_text(dump(course.model_copy(update={"participants": own}).with_base(folder)), encoding="utf-8")
    assert load_course(path).participants[-1].name == "torch-10000"


PIECES = st.sampled_from(
    ["[", "]", "{", "}", ": ", "- ", "&a ", "*a", "<<", "!!int ", "!!set ", "---\n", "...\n", "\n", "  ", "\t", "'", '"', "#", "|", ">", "?", "%",
     ".inf", ".nan", "~", "no", "1:30", "0x", "9" * 40, "\0", "\x1b", "\u2028", "\ufeff", "\U0001f600", "2026-13-45", "a: " * 30, "[" * 40]
)  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), PIECES), min_size=1, max_size=4),
    st.lists(
        st.tuples(st.sampled_from([*NUMBERS, "participants.0", "models", "name", "input.0"]), PIECES),
        max_size=1,
    ),
)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_courses(
    folder: Path, edits: list[tuple[int, int, str]], replaced: list[tuple[str, str]]
) -> None:
    text = GOOD
    for place, cut, piece in edits:
        text = text[:place] + piece + text[place + cut :]
    path = folder / "mutated.yaml"
    path.write_text(text, encoding="utf-8")
    said, began = "", time.process_time()
    try:
        load_course(path, [f"{key}={value}" for key, value in replaced])
    except RefusedInput as error:
        said = str(error)
    assert within(time.process_time() - began, SECOND_S)
    assert all(character.isprintable() or character == "\n" for character in said)
