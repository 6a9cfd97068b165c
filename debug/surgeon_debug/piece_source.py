"""A model as pieces are cut from it: an index of its main graph, and small files whose weights stay where they are.

A piece holds some nodes of the main graph. What it reads from elsewhere becomes an input, except weights, which point
into the file they came from: cutting 4 GB into fifty pieces copies none of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from surgeon_debug.piece_parts import PieceConstant, constants_of, inline_weights, reads_of_bodies, rename_reads
from surgeon_passes.errors import BadModelError, FileError
from surgeon_passes.graph import small_proto
from surgeon_passes.order import dependencies, find_cycle, sorted_nodes
from surgeon_passes.pause_collector import collector_paused
from surgeon_passes.walk import main_scope
from surgeon_passes.weight_file import MappedTensor

_MIN_IR_VERSION = 4  # from here on an initializer need not be an input
_MAKE_NON_TENSORS = {
    "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceMap", "SplitToSequence",
    "Optional", "ZipMap",
}  # fmt: skip
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


@dataclasses.dataclass(frozen=True)
class PieceNode:
    """A node of the main graph, by names."""

    title: str
    """How messages call it."""
    op: str
    """Its operator."""
    reads: tuple[str, ...]
    """Tensors it or its bodies read that are computed in the main graph or fed, each once."""
    writes: tuple[str, ...]
    """Its outputs, those left out not among them."""
    weights: tuple[str, ...]
    """Constants it or its bodies read."""
    before: tuple[int, ...]
    """Positions of the nodes it waits for."""


@dataclasses.dataclass(frozen=True)
class Port:
    """An input of a piece."""

    name: str
    """What the input is called in the piece."""
    element_type: int
    """Number in TensorProto.DataType."""
    shape: tuple[int | None, ...] | None
    """Dimensions, None where samples differ."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """What a piece is made of."""

    nodes: Sequence[int]
    """Positions in :attr:`PieceSource.nodes`, ascending."""
    ports: Mapping[str, Port]
    """Inputs by the name of the tensor in the model."""
    outputs: Sequence[str]
    """Tensors to show."""
    constants: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Values of tensors that are the same in every run, fixed in the piece instead of fed, by the model's names."""


class PieceSource:
    """A loaded model, ready to be cut.

    Args:
        model: The model; its weights are not read. It must not change afterwards.
        folder: Where pieces are written; the caller removes it.
        label: The folder in it that this source makes.

    Raises:
        BadModelError: The graph has a cycle.
    """

    def __init__(self, model: ir.Model, folder: Path, label: str) -> None:
        self.model = model
        self._folder = folder / label  # of its own, for the weights of two models may be in files of one name
        self._folder.mkdir()
        self._lock = threading.Lock()  # both sides of a comparison may cut the same model at the same time
        self._written = itertools.count()
        self._links: dict[str, str] = {}
        with collector_paused():
            self._proto, taken = small_proto(model, lambda t: isinstance(t, (MappedTensor, ir.ExternalTensor)))
            self._taken = taken
            self._constants = constants_of(self._proto, taken)
            self._sparse = {tensor.values.name: tensor for tensor in self._proto.graph.sparse_initializer}
            self._protos: list[onnx.NodeProto] = []
            self.nodes: list[PieceNode] = []
            self.mark = "surgeon."
            """What names begin with that pieces make up; no tensor's name does."""
            self._index()
        self.non_tensors = _non_tensors(model.graph)
        self.producer = {name: i for i, node in enumerate(self.nodes) for name in node.writes}
        self.inputs = {value.name: value for value in self._proto.graph.input if value.name not in self._constants}
        self.outputs = [value.name for value in self._proto.graph.output]
        self.glued = self._glued()

    def _index(self) -> None:
        """Fill the nodes in topological order; Constant nodes count as constants."""
        graph = self.model.graph
        waits = dependencies(graph)
        order = sorted_nodes(waits)
        scope = main_scope(self.model)
        if len(order) < len(waits):
            names = ", ".join(scope.label(node) for node in find_cycle(waits)[:4])
            raise BadModelError(f"the graph has a cycle through {names}")
        protos = dict(zip(waits, self._proto.graph.node, strict=True))
        fed = {value.name for value in graph.inputs if not value.is_initializer()}
        fed.update(value.name for value in graph.inputs)
        computed = {value.name for node in order for value in node.outputs if value.name} - self._constants.keys()
        place: dict[ir.Node, int] = {}
        for node in order:
            if node.outputs and node.outputs[0].name in self._constants:
                continue
            read = {value.name for value in node.inputs if value is not None and value.name}
            read.update(reads_of_bodies(protos[node]))
            reads = tuple(sorted(name for name in read if name and (name in computed or name in fed)))
            weights = tuple(sorted(name for name in read if name in self._constants))
            writes = tuple(value.name for value in node.outputs if value.name)
            before = tuple(sorted(place[other] for other in waits[node] if other in place))
            place[node] = len(self.nodes)
            self.nodes.append(PieceNode(scope.label(node), node.op_type, reads, writes, weights, before))
            self._protos.append(protos[node])
        ours = [name for name in (*fed, *computed, *self._constants) if name and name.startswith(self.mark)]
        while any(name.startswith(self.mark) for name in ours):
            self.mark += "_"

    def _glued(self) -> set[int]:
        """Positions before which no piece may end, because a sequence or an optional crosses them."""
        last = {name: i for i, node in enumerate(self.nodes) for name in node.reads if name in self.non_tensors}
        return {
            position
            for name, until in last.items()
            if name in self.producer
            for position in range(self.producer[name] + 1, until + 1)
        }

    @property
    def opset(self) -> int:
        """The version of the default operator set."""
        return main_scope(self.model).opset

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a constant of the main graph; None if there is none of that name."""
        constant = self._constants.get(name)
        if constant is None:
            return None
        return onnx.numpy_helper.to_array(constant.tensor) if constant.held is None else constant.held.numpy()

    def constant_shape(self, name: str) -> tuple[int, ...] | None:
        """Dimensions of a constant; None if there is none of that name."""
        constant = self._constants.get(name)
        return None if constant is None else tuple(constant.tensor.dims)

    def inputs_of(self, index: int) -> list[str]:
        """Names of a node's inputs in order, empty where one is left out."""
        return list(self._protos[index].input)

    def window(self, index: int) -> int:
        """How many elements a pooling node takes together; 1 if it states no window."""
        shapes = [attribute.ints for attribute in self._protos[index].attribute if attribute.name == "kernel_shape"]
        return math.prod(shapes[0]) if shapes else 1

    def has_negative_factor(self, index: int) -> bool:
        """Whether an attribute of a node is a negative number with a fraction, such as Gemm's ``alpha``."""
        return any(attribute.f < 0.0 for attribute in self._protos[index].attribute)

    def weight_bytes(self, name: str) -> int:
        """Bytes of a constant."""
        return self._constants[name].nbytes

    def is_random(self, index: int) -> bool:
        """Whether a node draws random numbers, or drops elements at random, as far as that can be told."""
        if self.nodes[index].op != "Dropout":
            return self.nodes[index].op in _RANDOM
        inputs = self.inputs_of(index)
        if len(inputs) < 3 or not inputs[2]:
            return False
        training = self.constant(inputs[2])
        return training is None or bool(training.any())

    def closure(self, wanted: Iterable[str], stop: Collection[str]) -> tuple[list[int], list[str]]:
        """The nodes that compute some tensors when those in ``stop`` are given, and what these nodes read.

        A wanted tensor is computed even if it stands in ``stop``.

        Returns:
            Positions, ascending; names of tensors to feed: those of ``stop`` and inputs of the graph.
        """
        nodes: set[int] = set()
        ports: dict[str, None] = {}
        stack = [self.producer[name] for name in wanted if name in self.producer]
        while stack:
            index = stack.pop()
            if index in nodes:
                continue
            nodes.add(index)
            for name in self.nodes[index].reads:
                if name in stop or name not in self.producer:
                    ports[name] = None
                else:
                    stack.append(self.producer[name])
        return sorted(nodes), list(ports)

    def write(self, cut: Cut) -> Path:
        """Write a piece.

        Raises:
            FileError: The folder cannot be written.
        """
        model = onnx.ModelProto()
        proto = self._proto
        model.ir_version = max(proto.ir_version, _MIN_IR_VERSION)
        model.opset_import.extend(proto.opset_import)
        model.functions.extend(proto.functions)
        graph = model.graph
        graph.name = proto.graph.name or "piece"
        renamed = {name: port.name for name, port in cut.ports.items() if port.name != name}
        produced = {name for i in cut.nodes for name in self.nodes[i].writes}
        fixed = {name: f"{self.mark}fixed/{name}" if name in produced else name for name in cut.constants}
        renamed.update((name, other) for name, other in fixed.items() if other != name)
        needed: dict[str, None] = {}
        for index in cut.nodes:
            node = graph.node.add()
            node.CopyFrom(self._protos[index])
            if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
                inline_weights(node, self._taken)
            if renamed:
                rename_reads(node, renamed)
            needed.update(dict.fromkeys(self.nodes[index].weights))
        for name in needed:
            if name not in cut.ports and name not in cut.constants:
                self._add_constant(graph, name)
        if self._sparse:
            read = {name for node in graph.node for name in (*node.input, *reads_of_bodies(node))}
            graph.sparse_initializer.extend(self._sparse[name] for name in self._sparse if name in read)
        for name, value in cut.constants.items():
            graph.initializer.append(onnx.numpy_helper.from_array(value, fixed[name]))
        for name, port in cut.ports.items():
            self._add_input(graph, name, port)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in cut.outputs)
        return self._save(model)

    def _save(self, model: onnx.ModelProto) -> Path:
        path = self._folder / f"piece-{next(self._written)}.onnx"
        try:
            path.write_bytes(model.SerializeToString())
        except OSError as error:
            raise FileError(f"cannot be written: {error.strerror}", where=str(path)) from error
        return path

    def write_whole(self) -> Path | None:
        """Write the model as it is, with weights that are inside its file left there; None if they are not inside.

        An engine maps such weights; to read them as part of the model costs it twice their size in memory.
        """
        if not any(isinstance(constant.held, MappedTensor) for constant in self._constants.values()):
            return None
        model = onnx.ModelProto()
        model.CopyFrom(self._proto)
        model.ir_version = max(model.ir_version, _MIN_IR_VERSION)
        for tensor in model.graph.initializer:
            self._point(tensor, self._constants[tensor.name])
        for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
            inline_weights(node, self._taken)
        return self._save(model)

    def _add_input(self, graph: onnx.GraphProto, name: str, port: Port) -> None:
        declared = self.inputs.get(name)
        if declared is not None and declared.type.WhichOneof("value") != "tensor_type":
            graph.input.add().CopyFrom(declared)
            return
        made = graph.input.add(name=port.name)
        made.type.tensor_type.elem_type = port.element_type
        if port.shape is not None:
            shape = made.type.tensor_type.shape
            shape.SetInParent()  # a scalar's shape is there and empty
            for size in port.shape:
                dim = shape.dim.add()
                if size is not None:
                    dim.dim_value = size

    def _add_constant(self, graph: onnx.GraphProto, name: str) -> None:
        constant = self._constants[name]
        made = graph.initializer.add()
        made.CopyFrom(constant.tensor)
        made.name = name
        self._point(made, constant)

    def _point(self, tensor: onnx.TensorProto, constant: PieceConstant) -> None:
        """Make a tensor of a piece refer to where its data are."""
        if constant.path:
            del tensor.external_data[:]
            entries = {"location": self._linked(constant.path), "offset": constant.offset, "length": constant.nbytes}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))

    def _linked(self, path: str) -> str:
        """The name, in the folder of pieces, of a file that holds weights; a hard link, else a symbolic one."""
        with self._lock:
            if path not in self._links:
                real = Path(path).resolve()
                name = real.name
                # What is written to a hard link of a piece's name would end up in the user's own file.
                if name in self._links.values() or name.startswith("piece-"):
                    name = f"{len(self._links)}-{name}"
                target = self._folder / name
                if not target.exists():
                    try:
                        os.link(real, target)
                    except OSError:
                        with contextlib.suppress(FileExistsError):
                            target.symlink_to(real)
                self._links[path] = name
            return self._links[path]


def _non_tensors(graph: ir.Graph) -> set[str]:
    """Values of the main graph that are sequences or optionals, as far as types or operators tell."""
    return {
        value.name
        for node in graph
        for value in node.outputs
        if value.name
        and (isinstance(value.type, (ir.SequenceType, ir.OptionalType)) or node.op_type in _MAKE_NON_TENSORS)
    }
