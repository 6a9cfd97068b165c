"""Decide which nodes to evaluate ahead of time: those that are constant, worth it, and not too large."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

import onnx_ir as ir

from surgeon_passes.constants import constant_of, nbytes_of
from surgeon_passes.contract import ChangeLog
from surgeon_passes.direct_values import LAYOUT_OPS, is_layout
from surgeon_passes.foldable import Foldable
from surgeon_passes.known_facts import KnownFacts
from surgeon_passes.reads import holds_graphs, inner_nodes, values_read
from surgeon_passes.walk import Scope, is_onnx_op, scopes, title
from surgeon_passes.write_folds import FoldWriter

MEMORY = 256 * 2**20
"""Bytes that the inputs, or the outputs, of one node or one batch may take, unless the data is only laid out anew."""

_UNSIZED = 2**20
"""Bytes of input up to which a node is evaluated whose result has a size that only the data tell."""

_NO_TENSOR = (
    *("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceMap", "SplitToSequence"),
    *("Optional", "ZipMap"),
)


@dataclasses.dataclass(slots=True, eq=False)
class Fold:
    """A node that can be evaluated ahead of time."""

    node: ir.Node
    scope: Scope
    known: bool
    """Whether all that is read of it is known without evaluating anything."""
    constant: bool
    """Whether it follows from constants alone; otherwise from sizes too."""
    results: list[ir.Value] = dataclasses.field(default_factory=list)
    """The outputs that stay; none if only other folded nodes read it."""
    room: int = 0
    """Bytes the results may take."""
    stays: bool = False
    """Whether the node stays, because its results cannot be kept; others may need them on the way."""


class FoldPlan:
    """The folds of a model, in the order of computation, graph by graph, outer graphs first.

    Args:
        model: The model.
        facts: What is known of values.
        writer: Knows uses, and which nodes are gone already.
        foldable: Says which nodes may be evaluated.
        size_limit: Bytes by which results may be larger than what they replace.
        fold_shapes: Fold what follows from sizes alone.
        refused: Nodes that an earlier attempt failed on.
        overridable: Whether initializers that are also inputs count as constants.
        log: Told what is left alone, and why.
    """

    def __init__(
        self,
        model: ir.Model,
        facts: KnownFacts,
        writer: FoldWriter,
        foldable: Foldable,
        *,
        size_limit: int,
        fold_shapes: bool,
        refused: Mapping[ir.Node, str],
        overridable: bool,
        log: ChangeLog,
    ) -> None:
        self._facts = facts
        self._writer = writer
        self._foldable = foldable
        self._size_limit = size_limit
        self._fold_shapes = fold_shapes
        self._refused = refused
        self._overridable = overridable
        self._log = log
        self._folds: dict[ir.Node, Fold] = {}
        self._inside: set[ir.Node] = set()
        for scope in scopes(model):
            self._collect(scope)
        self._decide()
        self.folds = list(self._folds.values())
        """Everything that can be evaluated, in order; what has ``results`` is replaced by them."""

    def tensor(self, value: ir.Value) -> ir.TensorProtocol | None:
        """What a value holds, if that is known before anything is evaluated."""
        tensor = constant_of(value, overridable=self._overridable)
        producer = value.producer()
        if tensor is None and producer in self._folds and self._folds[producer].known:
            array = self._facts[value].array()
            tensor = None if array is None else ir.Tensor(array, dtype=self._facts[value].dtype)
        return tensor

    def is_direct(self, node: ir.Node) -> bool:
        """Whether a result is only data laid out or typed anew, so that its size does not matter."""
        if not node.inputs or node.inputs[0] is None or not is_onnx_op(node, *LAYOUT_OPS):
            return False
        made = self._facts[node.outputs[0]]
        return made.static is not None and is_layout(node, self._facts[node.inputs[0]].dtype, made.dtype)

    def _collect(self, scope: Scope) -> None:
        if scope.owner is not None and (scope.owner in self._folds or scope.owner in self._inside):
            return
        for node in scope.graph:
            if self._writer.is_dead(node) or is_onnx_op(node, "Constant") or not node.outputs:
                continue
            fold = self._candidate(node, scope)
            if fold is not None:
                self._folds[node] = fold
                if holds_graphs(node):
                    self._inside.update(inner_nodes(node))

    def _candidate(self, node: ir.Node, scope: Scope) -> Fold | None:
        if node in self._refused:
            self._log.decline(title(node), self._refused[node], where=scope.path)
            return None
        read = values_read(node)
        fixed = all(self._is_fixed(value) for value in read)
        known = (fixed or self._fold_shapes) and self._is_known(node)
        if not fixed and not known:
            return None
        objection = self._foldable.objection(node, scope)
        if objection is None and not known:
            objection = self._too_large(node)
        if objection is not None:
            self._log.decline(title(node), objection, where=scope.path)
            return None
        constant = fixed and all(fold.constant for value in read if (fold := self._fold_of(value)) is not None)
        return Fold(node, scope, known, constant)

    def _fold_of(self, value: ir.Value) -> Fold | None:
        producer = value.producer()
        return None if producer is None else self._folds.get(producer)

    def _is_fixed(self, value: ir.Value) -> bool:
        producer = value.producer()
        if producer is not None and not is_onnx_op(producer, "Constant"):
            return producer in self._folds
        return constant_of(value, overridable=self._overridable) is not None

    def _is_known(self, node: ir.Node) -> bool:
        read = [value for value in node.outputs if self._writer.uses(value)]
        return bool(read) and all(self._facts[value].known_ints is not None for value in read)

    def _too_large(self, node: ir.Node) -> str | None:
        """Why evaluating a node would take too much memory, or None."""
        if self.is_direct(node):
            return None
        inputs = sum(self._nbytes(value) or 0 for value in set(values_read(node)))
        outputs = [self._nbytes(value) for value in node.outputs if self._writer.uses(value)]
        total = sum(size for size in outputs if size is not None)
        if max(inputs, total) > MEMORY:
            return f"evaluating it takes {size_text(max(inputs, total))} of memory"
        if None in outputs and inputs > _UNSIZED:
            return f"the size of its result cannot be told, and its inputs have {size_text(inputs)}"
        return None

    def _nbytes(self, value: ir.Value) -> int | None:
        tensor = constant_of(value, overridable=self._overridable)
        return nbytes_of(tensor) if tensor is not None else self._facts[value].nbytes

    def _decide(self) -> None:
        """Go backwards: a node is replaced if what must be kept of it is a tensor that is small enough."""
        for fold in reversed(self._folds.values()):
            fold.results = [value for value in fold.node.outputs if self._is_kept(value)]
            problem = self._problem(fold) if fold.results else None
            if problem is not None:
                fold.results, fold.stays = [], True
            if problem:
                self._log.decline(title(fold.node), problem, where=fold.scope.path)

    def _is_kept(self, value: ir.Value) -> bool:
        """Whether something that stays reads a value."""
        if value.is_graph_output() or self._writer.is_pinned(value):
            return True
        return any(self._is_staying(user) for user, _ in value.uses())

    def _is_staying(self, node: ir.Node) -> bool:
        fold = self._folds.get(node)
        return fold.stays if fold is not None else node not in self._inside

    def _problem(self, fold: Fold) -> str | None:
        """Why the results cannot be kept; empty if there is nothing to be said about it."""
        node = fold.node
        if node.op_type in _NO_TENSOR or any(_is_other(value) for value in fold.results):
            return ""
        if is_onnx_op(node, "Identity") and all(value.is_graph_output() for value in fold.results):
            source = node.inputs[0]
            if source is not None and source.producer() is None:
                return ""  # a Constant node in its place would only copy the data
        sizes = [self._facts[value].nbytes for value in fold.results]
        total = sum(size for size in sizes if size is not None)
        fold.room = self._size_limit
        if total > self._size_limit or None in sizes:
            fold.room += self._freed(node)
        if total > fold.room:
            return f"result of {size_text(total)} exceeds size_limit"
        return None

    def _freed(self, node: ir.Node) -> int:
        """Bytes of constants that nobody reads once a node is replaced: its own inputs, and those of its producers."""
        freed, stack = 0, [node]
        while stack:
            for value, count in collections.Counter(values_read(stack.pop())).items():
                if value.is_graph_output() or self._writer.uses(value) != count:
                    continue
                producer, tensor = value.producer(), constant_of(value)
                if tensor is not None:
                    freed += nbytes_of(tensor)
                elif producer in self._folds and self._writer.can_remove(producer, [value]):
                    stack.append(producer)  # it is read here alone, so it does not stay
        return freed


def _is_other(value: ir.Value) -> bool:
    """Whether a value is declared to be a sequence or an optional."""
    return value.type is not None and not isinstance(value.type, ir.TensorType)


def size_text(size: int) -> str:
    """A size in bytes for people: ``48 MB``, ``1.7 MB``, ``16 kB``, ``8 B``."""
    for unit, factor in (("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.{0 if size >= 10 * factor else 1}f} {unit}"
    return f"{size} B"
