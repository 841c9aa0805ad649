"""A file beside those of a registry, in programs that a test starts: as if somebody had put it into the folder; and who names its members."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

_FIND = """\
import sys
from importlib.machinery import PathFinder


class Beside:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != {package!r}:
            return None
        spec = PathFinder.find_spec(name, path)
        spec.submodule_search_locations.append({folder!r})
        return spec


sys.meta_path.insert(0, Beside)
"""


def beside(folder: Path, package: str, name: str, text: str) -> Mapping[str, str]:
    """The environment of a program, and of those that it starts, which finds a file in a package.

    Args:
        folder: An empty one for the file.
        package: The package, dotted.
        name: The file, without its ending.
        text: What is in it.
    """
    kinds = folder / "kinds"
    kinds.mkdir(parents=True)
    (kinds / f"{name}.py").write_text(dedent(text))
    # Python imports it before anything else.
    (folder / "sitecustomize.py").write_text(_FIND.format(package=package, folder=str(kinds)))
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def naming(root: Path, pattern: str, *, outside: str, ignore_case: bool = False) -> list[str]:
    """Files of the core and the adapters, outside of a folder, in which a pattern stands.

    Args:
        root: Of the project.
        pattern: An extended regular expression.
        outside: Part of the paths that are left out.
        ignore_case: Whether capital letters are the same.
    """
    how = "-liE" if ignore_case else "-lE"
    found = subprocess.run(
        ["git", "grep", how, pattern, "--", "adapters/xbfl_*", "xbackend_fl/*.py"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in found.stdout.splitlines() if outside not in line]
