"""``xbfl doctor``: what this machine has."""

from __future__ import annotations

import typer

from xbackend_fl.cli.console import echo
from xbackend_fl.cli.options import Json, print_json

_PACKAGES = ("xbackend-fl", "numpy", "onnx", "onnxruntime", "safetensors", "pydantic", "typer", "rich")


def doctor(as_json: Json = False) -> None:
    """Report Python, processors, packages and adapters; exit 1 if no backend can train."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from xbackend_fl.adapter import load, names
    from xbackend_fl.errors import AdapterError

    packages: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    backends: dict[str, str | None] = {}
    hints: list[str] = []
    for name in names():
        try:
            backends[name] = load(name).version
        except AdapterError as error:
            backends[name] = None
            hints.append(str(error))
    report = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": packages,
        "backends": backends,
    }
    if as_json:
        print_json(report)
    else:
        echo(f"Python {report['python']} on {report['platform']}, {report['processors']} processors")
        for package, found in packages.items():
            echo(f"  {package} {found or 'missing'}")
        for name, found in backends.items():
            echo(f"  backend {name}: {found or 'not installed'}")
        for hint in hints:
            echo(hint)
    if not any(backends.values()):
        raise typer.Exit(1)
