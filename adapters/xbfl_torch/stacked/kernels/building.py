"""Triton writes a function in C for each kernel, which launches it, and has it compiled: in half the time without optimization."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path


def built(
    name: str,
    source: str,
    folder: str,
    library_folders: Sequence[str],
    include_folders: Sequence[str],
    libraries: Sequence[str],
) -> str:
    """Compile a module of Python's that Triton has written; for ``triton.knobs.build.impl``.

    Args:
        name: Of the module.
        source: The file in C.
        folder: Where the module is put.
        library_folders: Where libraries are.
        include_folders: Where headers are.
        libraries: Names, or names of files.

    Returns:
        The module's file.

    Raises:
        RuntimeError: There is no compiler.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("no C compiler was found; set CC to one")
    module = str(Path(folder, f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"))
    headers = [*include_folders, folder, sysconfig.get_config_var("INCLUDEPY")]
    command = [compiler, source, "-O0", "-w", "-shared", "-fPIC", "-o", module]
    command += [f"-l:{item}" if ".so" in item or item.endswith(".a") else f"-l{item}" for item in libraries]
    command += [f"-L{item}" for item in library_folders] + [f"-I{item}" for item in headers]
    subprocess.check_call(command, stdout=subprocess.DEVNULL)  # noqa: S603  as Triton does
    return module
