"""Modules in C that Triton writes are compiled as Triton would, but for the optimization."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from xbfl_torch.stacked.kernels.building import built

SOURCE = """
#include <Python.h>
#include "told.h"
extern double cos(double);
static PyObject *ask(PyObject *self, PyObject *args) { return PyFloat_FromDouble(TOLD + cos(0.0)); }
static PyMethodDef methods[] = {{"ask", ask, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "asked", NULL, -1, methods};
PyMODINIT_FUNC PyInit_asked(void) { return PyModule_Create(&module); }
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_a_module_of_pythons(tmp_path: Path) -> None:
    (tmp_path / "headers").mkdir()
    (tmp_path / "headers" / "told.h").write_text("#define TOLD 41.0\n")
    source = tmp_path / "asked.c"
    source.write_text(SOURCE)
    place = built(
        "asked", str(source), str(tmp_path), [str(tmp_path)], [str(tmp_path / "headers")], ["libm.so.6"]
    )
    spec = importlib.util.spec_from_file_location("asked", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.ask() == 42.0
    source.write_text("no C")
    with pytest.raises(subprocess.CalledProcessError):
        built("asked", str(source), str(tmp_path), [], [], [])


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="no C compiler"):
        built("asked", "asked.c", str(tmp_path), [], [], [])
