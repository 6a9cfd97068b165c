"""Sizes for the dimensions of a model's inputs: fixed ones as they are, symbolic ones the same wherever they occur."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from surgeon_passes.errors import BadOptionError

BATCH_SIZE = 2
"""The size of a batch: more than one, so that what leaks from one row into another shows."""
IMAGE_SIZE = 64
"""Height and width of an image: enough for five halvings."""

_BATCH = re.compile(r"batch", re.IGNORECASE)
_BATCH_LETTER = re.compile(r"^(n|b|bs)$", re.IGNORECASE)
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
    ast.Mod: operator.mod,
}


class Sizes:
    """Chooses and remembers the size of each symbol; unrelated symbols get one size, so that they fit each other.

    Args:
        seed: Decides the size of symbols that say nothing about themselves.
        dims: Sizes by symbol, chosen by the caller.
        small: Make every other size 1 but those of images, which fits almost anything and shows little.
    """

    def __init__(self, seed: int, dims: Mapping[str, int] | None = None, *, small: bool = False) -> None:
        self._chosen = dict(dims or {})
        for symbol, size in self._chosen.items():
            if size < 0:
                raise BadOptionError(f"dimension {symbol}={size} is negative", hint="give a size from 0 upwards")
        self._common = 1 if small else int(np.random.default_rng([seed, 1]).integers(5, 10))
        self._batch = 1 if small else BATCH_SIZE

    def of(self, shape: ir.Shape | None, *, image: bool = False) -> tuple[int, ...]:
        """A shape in numbers; without one, a square matrix.

        Args:
            shape: The declared shape.
            image: The last two dimensions are height and width.
        """
        if shape is None:
            return (self._common, self._common)
        return tuple(self._size(dim, axis, len(shape), image) for axis, dim in enumerate(shape))

    def _size(self, dim: int | ir.SymbolicDim, axis: int, rank: int, image: bool) -> int:
        if isinstance(dim, int) and dim >= 0:
            return dim
        symbol = None if isinstance(dim, int) else dim.value  # some exporters write -1 for unknown
        spatial, first_of_image = image and axis >= rank - 2, rank >= 4 and axis == 0
        if symbol is None:
            return IMAGE_SIZE if spatial else self._batch if first_of_image else self._common
        if symbol not in self._chosen:
            letter = axis == 0 and _BATCH_LETTER.search(symbol) is not None
            self._chosen[symbol] = self._batch if letter else self._guess(symbol, spatial)
        return self._chosen[symbol]

    def _guess(self, symbol: str, spatial: bool) -> int:
        if not symbol.isidentifier() and (size := self._evaluate(symbol)) is not None:
            return size
        if _BATCH.search(symbol):
            return self._batch
        return IMAGE_SIZE if spatial else self._common

    def _evaluate(self, text: str) -> int | None:
        """The value of an expression such as ``past + seq``, which exporters write as the name of a dimension."""
        try:
            size = self._value(ast.parse(text, mode="eval").body)
        except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
            return None
        return size if size >= 0 else None

    def _value(self, node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            if node.id not in self._chosen:
                self._chosen[node.id] = self._guess(node.id, False)
            return self._chosen[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return int(_OPERATORS[type(node.op)](self._value(node.left), self._value(node.right)))
        raise ValueError(ast.dump(node))


def check_dims(dims: Mapping[str, int], shapes: Sequence[ir.Shape | None]) -> None:
    """Make sure that every symbol that the caller sizes occurs in some input.

    Raises:
        BadOptionError: One does not.
    """
    names: set[str] = set()
    for shape in shapes:
        for dim in shape or ():
            if not isinstance(dim, int) and dim.value:
                names |= {dim.value, *re.findall(r"[A-Za-z_]\w*", dim.value)}
    for symbol in dims:
        if symbol not in names:
            known = ", ".join(sorted(names)) or "none"
            raise BadOptionError(f"no input has a dimension '{symbol}'", hint=f"the symbolic dimensions are: {known}")
