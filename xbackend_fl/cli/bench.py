"""``xbfl bench``: how long rounds take and what they need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import Json, Settings, print_json
from xbackend_fl.cli.table import print_table
from xbackend_fl.text import number_of

if TYPE_CHECKING:
    from xbackend_fl.events import Event
    from xbackend_fl.simulation import Bench
    from xbackend_fl.simulation.sweep import Point

_PUBLISHED = (
    {
        "what": "FederatedScope, its documentation (FEMNIST, GPU not named)",
        "seconds a round": 1.4,
        "memory": "2.76 GB",
    },
    {"what": "FedML, the same page", "seconds a round": 4.4, "memory": "7.88 GB"},
    {"what": "FederatedScope HEAD on one H200", "seconds a round": 1.7, "memory": "1,045 MiB on the device"},
)


_TAKEN = {
    "aggregation": ("values", "updates", "device", "repeats", "as_json"),
    "scaling": ("settings", "over", "backend", "warm_up", "repeats", "as_json"),
    "a course": ("settings", "over", "warm_up", "repeats", "as_json"),
}
"""Options by what is measured."""


def bench(
    context: typer.Context,
    course: Annotated[str, typer.Argument(help="Course file, or the word aggregation or scaling.")],
    settings: Settings = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B,C",
            help="Measure the course with each value of a key, in this order; repeatable.",
        ),
    ] = None,
    warm_up: Annotated[int, typer.Option(min=0, help="Rounds before the clock counts.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds (or repetitions) that count.")] = 5,
    values: Annotated[int, typer.Option(min=1, help="aggregation: values of the model.")] = 25_000_000,
    updates: Annotated[int, typer.Option(min=1, help="aggregation: updates of a round.")] = 10,
    device: Annotated[str, typer.Option(help="aggregation: cpu, or cuda for the mean by CuPy.")] = "cpu",
    backend: Annotated[str, typer.Option(help="scaling: who trains, torch or tensorflow.")] = "torch",
    as_json: Json = False,
) -> None:
    """Time rounds of COURSE: training, merging and the server's step, without evaluation and files.

    xbfl bench examples/femnist/course.yaml --over federate.cohort=10,40,200

    xbfl bench aggregation --values 100000000

    xbfl bench scaling
    """
    _refuse_unused(context, course)
    if course == "aggregation":
        _aggregation(values, updates, repeats, device, as_json=as_json)
        return
    if course == "scaling" or over:
        _growing(course, over or [], settings or [], warm_up, repeats, backend, as_json=as_json)
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


def _refuse_unused(context: typer.Context, course: str) -> None:
    """Refuse options that would change nothing."""
    kind = course if course in _TAKEN else "a course"
    names = {param.name: max(param.opts, key=len) for param in context.command.params}
    for name, option in names.items():
        source = context.get_parameter_source(str(name))
        if name in {"course", *_TAKEN[kind]} or source is None or source.name == "DEFAULT":
            continue
        taken = ", ".join(names[other] for other in _TAKEN[kind])
        raise typer.BadParameter(f"{option} does nothing where {kind} is measured, which takes {taken}")


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
    # What peers published is of this course alone.
    print_table([here, *(_PUBLISHED if found.course == "femnist" else ())])
    fastest, slowest = (pick(item.seconds for item in found.rounds) for pick in (min, max))
    steps = sum(item.steps for item in found.rounds) / len(found.rounds)
    echo(
        f"{found.values:,} values; {len(found.rounds)} rounds of {steps:.0f} steps: {found.seconds:.3f} s "
        f"({fastest:.3f} to {slowest:.3f}), {found.examples_per_second:,.0f} examples/s, "
        f"{found.cpu_seconds:.2f} processor seconds a round"
    )
    echo(
        f"{number_of(found.workers[0], 'worker')} per backend with {number_of(found.workers[1], 'thread')}; prepared in {found.prepare_seconds:.1f} s"
        + (f", first round {found.first[0].seconds:.2f} s" if found.first else "")
    )


def _growing(
    course: str,
    over: list[str],
    settings: list[str],
    warm_up: int,
    repeats: int,
    backend: str,
    *,
    as_json: bool,
) -> None:
    import tempfile

    from xbackend_fl.simulation.scaling import scaling_sweeps, write_scaling_course
    from xbackend_fl.simulation.sweep import Sweep, measure

    sweeps = [Sweep.parse(text) for text in over] or scaling_sweeps(backend)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        file = write_scaling_course(Path(folder), backend) if course == "scaling" else Path(course)
        for sweep in sweeps:
            points = []
            for point in measure(file, sweep, settings, warm_up=warm_up, repeats=repeats):
                echo(f"{sweep.key}={point.choice}: {point.seconds:.3f} s a round", err=True)
                points.append(point)
            found[sweep.key] = points
            if not as_json:
                print_table(_rows(sweep.key, points))
    if as_json:
        print_json({key: [vars(point) for point in points] for key, points in found.items()})
    else:
        echo(
            "growth, from a row to the next: 1 is in step with the size, 0 not at all; MiB: largest resident sets of all processes"
        )


def _rows(key: str, points: Sequence[Point]) -> list[dict[str, object]]:
    from xbackend_fl.simulation.sweep import growth

    slopes: list[float | str] = ["", *growth(points, lambda point: point.seconds)]
    rows: list[dict[str, object]] = []
    for point, slope in zip(points, slopes, strict=True):
        row: dict[str, object] = {key.rpartition(".")[2]: point.choice.rpartition(":")[2]}
        if not point.choice.replace(".", "").isdigit():
            row |= {"values": f"{point.size:,.0f}"}
        row |= {"s a round": point.seconds, "growth": slope}
        if point.peak_bytes:
            row |= {
                "processor seconds": point.cpu_seconds,
                "resident MiB": f"{point.peak_bytes / (1 << 20):,.0f}",
            }
        else:
            row |= {"last tenth / first": point.later}
        rows.append(row)
    return rows


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
                "of the limit": f"{item.fraction:.0%}",
            }
            for item in timings
        ]
    )
    memory = f"; the float32 mean allocates {extra:.2f} models" if device == "cpu" else ""
    echo(f"{values:,} values{memory}")
