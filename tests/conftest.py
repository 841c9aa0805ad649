"""Fixtures shared by all rooms, and the tiers of the suite. No framework is imported here: a test that uses one imports it."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import xbfl_tensorflow

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hundreds of processes import the same modules: each is compiled once, also where the environment forbids to keep bytecode.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Frameworks and tests are millions of objects, and looking at them for cycles at Python's own pace was a tenth of the time of the suite.
gc.set_threshold(20_000, 10, 10)
# A test may import TensorFlow or Keras before the adapter does.
xbfl_tensorflow.set_environment()

Figure = Callable[[str, object], None]
# A shared machine is slow at times; that is not a failure.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="run whole campaigns instead of samples")


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores: one of them mostly waits for the processes that it started."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import what ``-m quick`` leaves out: a module that is not quick as a whole imports frameworks."""
    if config.option.markexpr != "quick" or not collection_path.match("test_*.py"):
        return None
    return "pytest.mark.quick" not in collection_path.read_text() or None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is ``slow`` and thin out what is ``one_in(n)``, last of all: a row that was asked for alone runs."""
    if config.getoption("--thorough"):
        return
    seen: Counter[tuple[str, str]] = Counter()
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: --thorough"))
            continue
        marker = item.get_closest_marker("one_in")
        if marker is not None and isinstance(item, pytest.Function):
            function = (item.parent.nodeid if item.parent else "", item.originalname)
            if seen[function] % marker.args[0]:
                item.add_marker(pytest.mark.skip(reason=f"one row in {marker.args[0]}: --thorough"))
            seen[function] += 1


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end, and is looked at for cycles no more."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def thorough(request: pytest.FixtureRequest) -> bool:
    """Whether whole campaigns were asked for."""
    return bool(request.config.getoption("--thorough"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def digits() -> Path:
    return ROOT / "examples" / "digits"


@pytest.fixture
def normal() -> Callable[..., np.ndarray]:
    generator = np.random.default_rng(0)
    return lambda *shape: generator.standard_normal(shape).astype(np.float32)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Record a measured figure; the end of the test run prints all of them."""
    return lambda name, value: record_property(f"figure: {name}", value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = [
        (report.nodeid, name.removeprefix("figure: "), value)
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        for name, value in report.user_properties
        if name.startswith("figure: ")
    ]
    if figures:
        terminalreporter.section("measured figures")
        for test, name, value in sorted(figures):
            terminalreporter.line(f"{test.partition('::')[2]}: {name}: {value}")
