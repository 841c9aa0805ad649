"""``xbfl bench``: how long rounds take and what they need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import Json, Settings, print_json
from xbackend_fl.cli.table import print_table

if TYPE_CHECKING:
    from xbackend_fl.events import Event
    from xbackend_fl.simulation import Bench

_PUBLISHED = (
    {
        "what": "FederatedScope, its documentation (FEMNIST, GPU not named)",
        "seconds a round": 1.4,
        "memory": "2.76 GB",
    },
    {"what": "FedML, the same page", "seconds a round": 4.4, "memory": "7.88 GB"},
    {"what": "FederatedScope HEAD on one H200", "seconds a round": 1.7, "memory": "1,045 MiB on the device"},
)


def bench(
    course: Annotated[str, typer.Argument(help="Course file, or the word aggregation.")],
    settings: Settings = None,
    warm_up: Annotated[int, typer.Option(min=0, help="Rounds before the clock counts.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds (or repetitions) that count.")] = 5,
    values: Annotated[int, typer.Option(min=1, help="aggregation: values of the model.")] = 25_000_000,
    updates: Annotated[int, typer.Option(min=1, help="aggregation: updates of a round.")] = 10,
    device: Annotated[str, typer.Option(help="aggregation: cpu, or cuda for the mean by CuPy.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Time rounds of COURSE: training, merging and the server's step, without evaluation and files.

    xbfl bench examples/femnist/course.yaml

    xbfl bench aggregation --values 100000000
    """
    if course == "aggregation":
        _aggregation(values, updates, repeats, device, as_json=as_json)
        return
    from xbackend_fl.course import load_course
    from xbackend_fl.events import Noted
    from xbackend_fl.report import describe
    from xbackend_fl.simulation import bench_course

    def show(event: Event) -> None:
        if isinstance(event, Noted):
            echo(describe(event), err=True)

    loaded = load_course(Path(course), settings or ())
    found = bench_course(loaded, warm_up=warm_up, repeats=repeats, observer=show)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)


def _show(found: Bench) -> None:
    mebibyte = 1 << 20
    peak = sum(usage.peak_bytes for usage in found.usage.values()) / mebibyte
    shared = sum(usage.shared_bytes for usage in found.usage.values()) / mebibyte
    memory = f"{peak:,.0f} MiB resident, {shared:,.0f} MiB proportional"
    if allocated := sum(usage.device_peak_bytes for usage in found.usage.values()):
        used = sum(usage.device_used_bytes for usage in found.usage.values())
        memory += (
            f"; on the device {allocated / mebibyte:,.0f} MiB allocated, {used / mebibyte:,.0f} MiB in use"
        )
    here = {"what": f"{found.course}, this machine", "seconds a round": found.seconds, "memory": memory}
    print_table([here, *_PUBLISHED])
    fastest, slowest = (pick(item.seconds for item in found.rounds) for pick in (min, max))
    steps = sum(item.steps for item in found.rounds) / len(found.rounds)
    echo(
        f"{found.values:,} values; {len(found.rounds)} rounds of {steps:.0f} steps: {found.seconds:.3f} s "
        f"({fastest:.3f} to {slowest:.3f}), {found.examples_per_second:,.0f} examples/s, "
        f"{found.cpu_seconds:.2f} processor seconds a round"
    )
    echo(
        f"{found.workers[0]} workers per backend with {found.workers[1]} threads; prepared in {found.prepare_seconds:.1f} s, "
        f"first round {found.first[0].seconds if found.first else float('nan'):.2f} s"
    )


def _aggregation(values: int, updates: int, repeats: int, device: str, *, as_json: bool) -> None:
    from xbackend_fl.aggregation import bench_mean

    timings, extra = bench_mean(values, updates, repeats, device)
    if as_json:
        print_json({"timings": [vars(item) for item in timings], "extra_models": extra})
        return
    print_table(
        [
            {
                "what": item.name,
                "ms an update": 1000 * item.seconds,
                "GB/s": item.gigabytes_per_second,
                "of the limit": f"{item.share:.0%}",
            }
            for item in timings
        ]
    )
    memory = f"; the float32 mean needs {extra:.2f} models of memory" if device == "cpu" else ""
    echo(f"{values:,} values{memory}")
