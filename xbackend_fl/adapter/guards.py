"""What a line of Python does with a value that it reads: whether anything but a refusal can come of it."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from types import CodeType
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_SHOW = frozenset(
    {"print", "warn", "warning", "info", "debug", "log", "error", "_assert", "_check", "_check_value"}
)
"""Functions whose call changes nothing that a module returns."""


@dataclass(frozen=True)
class Call:
    """A call that has not ended: which instruction of which code."""

    code: CodeType
    instruction: int
    line: int

    @property
    def file(self) -> str:
        """Its source file."""
        return self.code.co_filename

    def span(self) -> tuple[int, int, int, int]:
        """First line, last line, first and last column of the expression that is computed."""
        found = next(islice(self.code.co_positions(), self.instruction // 2, None), (None,) * 4)
        first, last, start, stop = found
        return (first or self.line, last or first or self.line, start or 0, stop or 1_000_000)


def only_refuses(calls: Sequence[Call]) -> bool:
    """Whether a read can only end in an exception that leaves the module, or in words.

    Args:
        calls: The calls that led to the read, the innermost, which reads, first.
    """
    if any(caught(call) for call in calls):
        return False
    for call in calls:
        statement, function = _statement(call), _function(call)
        # What is returned goes to whoever called.
        if not isinstance(statement, ast.Return) and not isinstance(function, ast.Lambda):
            return statement is not None and _harmless(statement, call.span(), function)
    return False


def in_a_test(call: Call) -> bool:
    """Whether what is computed stands where a program branches or repeats; so also where nobody has the source."""
    path = _path(call)
    if not path:
        return True
    # Who asks for the items of a loop is the whole loop, for Python.
    tests = [node for node in path if isinstance(node, ast.For) and _span(node) == call.span()]
    return bool(tests) or any(_covers(test, call.span()) for test in _tests(path))


def _tests(path: Sequence[ast.AST]) -> Iterator[ast.AST]:
    for node in path:
        if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
            yield node.test
        elif isinstance(node, ast.For | ast.comprehension):
            yield node.iter
        elif isinstance(node, ast.BoolOp | ast.Compare | ast.Match):
            yield node


def only_skips(call: Call) -> bool:
    """Whether a test leaves out the rest of a turn of a loop, and does nothing else."""
    statement = _statement(call)
    if not isinstance(statement, ast.If) or statement.orelse:
        return False
    return all(isinstance(item, ast.Continue | ast.Pass) for item in statement.body)


def _harmless(statement: ast.stmt, span: tuple[int, int, int, int], function: Function | None) -> bool:
    match statement:
        case ast.Assert():
            return True
        case ast.If(test=test, body=body, orelse=other) if _covers(test, span):
            return _raises(body) or _raises(other) or all(map(_shows, (*body, *other)))
        case ast.Expr():
            return _shows(statement)
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if (
            function and not _is_shared(function, name)
        ):
            return all(_idle(path, _span(node)) for node, path in _readers(function, name))
    return False


def _idle(path: Sequence[ast.AST], span: tuple[int, int, int, int]) -> bool:
    """Whether nothing but a refusal or words can come of a variable that is read where a path leads to."""
    statements = [node for node in path if isinstance(node, ast.stmt)]
    told = (body for node in statements if isinstance(node, ast.If) for body in (node.body, node.orelse))
    refusing = any(_raises(body) and any(_covers(item, span) for item in body) for body in told)
    return refusing or (bool(statements) and _harmless(statements[-1], span, None))


def _raises(body: Sequence[ast.stmt]) -> bool:
    """Whether some statements always end in an exception."""
    leaves = (ast.Return, ast.Break, ast.Continue, ast.Yield, ast.Try)
    inside = (node for item in body for node in ast.walk(item))
    return (
        bool(body)
        and isinstance(body[-1], ast.Raise)
        and not any(isinstance(node, leaves) for node in inside)
    )


def _shows(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Pass):
        return True
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    function = statement.value.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in _SHOW


def _is_shared(function: Function, name: str) -> bool:
    """Whether a variable is one of the code around a function."""
    return any(
        isinstance(node, ast.Global | ast.Nonlocal) and name in node.names for node in ast.walk(function)
    )


def _readers(function: Function, name: str) -> Iterator[tuple[ast.Name, list[ast.AST]]]:
    """Where a function reads a variable, and what is around it there."""
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            yield node, list(_around(function, _span(node)))[1:]


def caught(call: Call) -> bool:
    """Whether somebody waits for an exception around what is computed."""
    for node in _path(call):
        if isinstance(node, ast.Try | ast.TryStar):
            inside = any(_covers(item, call.span()) for item in node.body)
            if inside and not all(_raises(item.body) for item in node.handlers):
                return True
        if isinstance(node, ast.With) and any(
            "suppress" in ast.unparse(item.context_expr) for item in node.items
        ):
            return True
    return False


def _statement(call: Call) -> ast.stmt | None:
    return next((node for node in reversed(_path(call)) if isinstance(node, ast.stmt)), None)


def _function(call: Call) -> Function | None:
    return next((node for node in reversed(_path(call)) if isinstance(node, Function)), None)


def _path(call: Call) -> list[ast.AST]:
    """What is around an expression in its source, from the module on; empty where nobody has it."""
    tree = _tree(call.file)
    return [] if tree is None else list(_around(tree, call.span()))


def _around(tree: ast.AST, span: tuple[int, int, int, int]) -> Iterator[ast.AST]:
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not hasattr(child, "lineno"):
            if any(_covers(item, span) for item in ast.walk(child)):
                yield from _around(child, span)
        elif _covers(child, span):
            yield from _around(child, span)


def _covers(node: ast.AST, span: tuple[int, int, int, int]) -> bool:
    if not hasattr(node, "lineno"):
        return False
    first, last, start, stop = span
    own = _span(node)
    return (own[0], own[2]) <= (first, start) and (last, stop) <= (own[1], own[3])


def _span(node: ast.AST) -> tuple[int, int, int, int]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset  # type: ignore[attr-defined]


@cache
def catches(file: str) -> bool:
    """Whether there is code in a file that waits for exceptions."""
    return any("except" in line or "suppress" in line for line in linecache.getlines(file))


@cache
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return None
