"""The value of a constant subgraph: onnxruntime in one go, node by node where that fails, onnx's evaluator after it."""

from __future__ import annotations

import collections
import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import onnx_ir as ir

from surgeon_passes.constant_model import build_constant_model, run_onnxruntime, run_reference
from surgeon_passes.constants import nbytes_of
from surgeon_passes.reads import holds_graphs, values_read

_log = logging.getLogger(__name__)

_NAMED = re.compile(r"""["'(]n(\d+)["')]""")
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")

_REFERENCE_BYTES = 4 * 2**20
"""The reference evaluator is slow: it gets no more input than this."""

_MOVES = frozenset(
    {
        *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile", "Pad", "Concat"),
        *("Slice", "Gather", "Split", "Where", "Cast", "CastLike", "Shape", "Size", "ConstantOfShape"),
    }
)
"""Operators that move or convert elements and compute nothing."""

_REFERENCE_OPS = _MOVES | frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Min", "Max", "Clip", "Floor", "Ceil", "Sqrt", "Sign", "Range"),
        *("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Not", "Xor"),
    }
)
"""Operators whose value does not depend on the order of a sum, so that the reference is as good as any engine."""

_Signature = tuple[str, str, tuple[ir.DataType | None, ...]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What could be computed and what could not."""

    values: dict[ir.Value, ir.TensorProtocol]
    """Results by value; every wanted one whose computation did not fail, and some on the way."""
    failures: dict[ir.Node, str]
    """Why a node could not be evaluated. Nodes that need its results are in neither."""


def evaluate(
    nodes: Sequence[ir.Node],
    constants: Mapping[ir.Value, ir.TensorProtocol],
    wanted: Iterable[ir.Value],
    opset_imports: Mapping[str, int],
    dtype_of: Callable[[ir.Value], ir.DataType | None] | None = None,
) -> Evaluation:
    """Compute values from constants.

    Args:
        nodes: The nodes to evaluate, in the order of computation, deterministic and of ONNX's own domains.
        constants: What every value holds that the nodes read and none of them makes.
        wanted: The values to compute: outputs of the nodes, tensors all of them.
        opset_imports: Opset versions by domain, as they hold where the nodes are.
        dtype_of: The type of a value if it is known; saves attempts where an engine lacks kernels for a type.
    """
    return _Evaluator(constants, wanted, opset_imports, dtype_of or (lambda _: None)).run(nodes)


class _Evaluator:
    """Splits the nodes until every part runs or is a single node that does not."""

    def __init__(
        self,
        constants: Mapping[ir.Value, ir.TensorProtocol],
        wanted: Iterable[ir.Value],
        opset_imports: Mapping[str, int],
        dtype_of: Callable[[ir.Value], ir.DataType | None],
    ) -> None:
        self._known = dict(constants)
        self._wanted = set(wanted)
        self._opsets = opset_imports
        self._dtype_of = dtype_of
        self._failures: dict[ir.Node, str] = {}
        self._lost: set[ir.Value] = set()
        self._found: dict[ir.Value, ir.TensorProtocol] = {}
        self._no_kernel: set[_Signature] = set()

    def run(self, nodes: Sequence[ir.Node]) -> Evaluation:
        alone = [i for i, node in enumerate(nodes) if holds_graphs(node) or self._is_half(node)]
        parts = collections.deque(_around(list(nodes), alone))
        # Values that a later part reads must come out of the part that makes them.
        needed = collections.Counter(value for part in parts for node in part for value in values_read(node))
        while parts:
            part = parts.popleft()
            needed.subtract(value for node in part for value in values_read(node))
            part = self._possible(part)
            made = [value for node in part for value in node.outputs if value in self._wanted or needed[value] > 0]
            if not made:
                continue
            again = self._attempt(part, made)
            parts.extendleft(reversed(again))
            needed.update(value for piece in again for node in piece for value in values_read(node))
        return Evaluation(self._found, self._failures)

    def _possible(self, part: list[ir.Node]) -> list[ir.Node]:
        """The nodes of a part that do not depend on one that failed."""
        possible = []
        for node in part:
            if any(value in self._lost for value in values_read(node)):
                self._lost.update(node.outputs)
            else:
                possible.append(node)
        return possible

    def _attempt(self, part: list[ir.Node], made: list[ir.Value]) -> list[list[ir.Node]]:
        """Compute one part; the smaller parts to try instead if that fails, none if it is settled."""
        refused = [i for i, node in enumerate(part) if self._no_kernel and self._signature(node) in self._no_kernel]
        if refused and len(part) > 1:
            return _around(part, refused)
        if refused:
            self._settle_alone(part[0], made, "onnxruntime has no kernel for it")
            return []
        try:
            self._keep(run_onnxruntime(build_constant_model(part, self._known, made, self._opsets)))
        except Exception as error:  # noqa: BLE001  (onnxruntime raises a dozen types; each means: not this way)
            text = _PREFIX.sub("", str(error).split("\n", 1)[0])
            named = _NAMED.search(text)
            at = int(named.group(1)) if named else 0 if len(part) == 1 else -1
            if "Could not find an implementation" in text and 0 <= at < len(part):
                self._no_kernel.add(self._signature(part[at]))
            if len(part) > 1:
                return _around(part, [at]) if 0 <= at < len(part) else _halves(part)
            self._settle_alone(part[0], made, text)
        return []

    def _is_half(self, node: ir.Node) -> bool:
        """Whether a node computes in float16: together, onnxruntime would not round between one and the next."""
        if node.op_type in _MOVES:
            return False
        values = (*node.inputs, *node.outputs)
        return any(value is not None and self._type(value) == ir.DataType.FLOAT16 for value in values)

    def _signature(self, node: ir.Node) -> _Signature:
        types = (self._type(value) for value in node.inputs if value is not None)
        return node.op_type, node.domain, tuple(types)

    def _type(self, value: ir.Value) -> ir.DataType | None:
        return self._known[value].dtype if value in self._known else self._dtype_of(value)

    def _settle_alone(self, node: ir.Node, made: list[ir.Value], reason: str) -> None:
        """The last resort for one node: onnx's reference evaluator, for operators it is trusted with."""
        size = sum(nbytes_of(self._known[v]) for v in node.inputs if v is not None and v in self._known)
        if node.op_type in _REFERENCE_OPS and node.domain in ("", "ai.onnx") and size <= _REFERENCE_BYTES:
            try:
                results = run_reference(build_constant_model([node], self._known, made, self._opsets, feed=False))
                if all(self._plausible(value, tensor) for value, tensor in results.items()):
                    self._keep(results)
                    return
            except Exception as error:  # noqa: BLE001  (the evaluator raises whatever its numpy code raises)
                _log.debug("the reference evaluator fails too on %s: %s", node.name, error)
        self._failures[node] = reason[:200]
        self._lost.update(node.outputs)

    def _plausible(self, value: ir.Value, tensor: ir.TensorProtocol) -> bool:
        """Whether a result of the reference has the type it must have; engines write numbers as text differently."""
        return tensor.dtype != ir.DataType.STRING and self._dtype_of(value) in (None, tensor.dtype)

    def _keep(self, results: dict[ir.Value, ir.TensorProtocol]) -> None:
        self._known.update(results)
        self._found.update(results)


def _around(part: list[ir.Node], alone: list[int]) -> list[list[ir.Node]]:
    """The nodes at some positions alone, and what stands between them together."""
    pieces, at = [], 0
    for i in alone:
        pieces += [part[at:i], [part[i]]]
        at = i + 1
    pieces.append(part[at:])
    return [piece for piece in pieces if piece]


def _halves(part: list[ir.Node]) -> list[list[ir.Node]]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]]
