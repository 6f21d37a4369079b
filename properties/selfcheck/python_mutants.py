"""Mutants of Python sources, made by cosmic-ray; those that differ in annotations and docstrings alone are left out."""

from __future__ import annotations

import ast
import difflib
import itertools
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from properties.selfcheck.cpp_mutants import Mutant

_NEEDS_A_NAME = ("core/VariableReplacer", "core/VariableInserter")
OPERATORS = tuple(name for name in operator_names() if name not in _NEEDS_A_NAME)


def mutants(root: Path, path: str, operator: str) -> Iterator[Mutant]:
    """Yields the mutants that an operator makes of a file, except those that differ in annotations and docstrings alone."""
    original = (root / path).read_text("utf-8")
    normalised, operate = _normalised(original), get_operator(operator)()
    for occurrence in itertools.count():
        code = mutate_code(original, operate, occurrence)
        if code is None:
            return
        if _normalised(code) != normalised:
            lines = difflib.unified_diff(original.splitlines(), code.splitlines(), n=0, lineterm="")
            yield Mutant(path, operator.removeprefix("core/"), "\n".join(list(lines)[3:]), code)


def _normalised(code: str) -> str:
    """Returns a program without annotations and docstrings, or its text if it does not parse."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return code
    return ast.dump(_Stripped().visit(tree))


class _Stripped(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(0)
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)
