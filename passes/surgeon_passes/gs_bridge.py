"""Between onnx_ir and onnx-graphsurgeon, with the weights left where they are.

graphsurgeon sees every weight as a lazy one. Only what a user's function looks at is read, and what it did not change
goes back as it was; so a model may be larger than memory, and larger than the two gigabytes of a protobuf message.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from surgeon_passes.errors import RefusalError, SurgeonError
from surgeon_passes.graph import small_proto
from surgeon_passes.gs_origins import Origins, bodies, graphs_of, look_of, proto_bodies
from surgeon_passes.wire import MARK

_LISTS = {
    ir.AttributeType.FLOATS: onnx.AttributeProto.FLOATS,
    ir.AttributeType.STRINGS: onnx.AttributeProto.STRINGS,
}


class Bridge:
    """A model as a graph of graphsurgeon.

    Args:
        model: The model; it is only read.

    Raises:
        RefusalError: graphsurgeon cannot hold what the model holds.
        SurgeonError: graphsurgeon is not installed.
    """

    def __init__(self, model: ir.Model) -> None:
        try:
            import onnx_graphsurgeon as gs
            from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter
        except ImportError as error:
            raise SurgeonError("onnx-graphsurgeon is not installed", hint="pip install onnx-graphsurgeon") from error
        self._gs, self._exporter = gs, OnnxExporter
        self.weights: list[ir.TensorProtocol] = []
        """The tensors that marks in exported models stand for, by index."""
        self._loaded: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._sparse: dict[int, tuple[Any, Any]] = {}
        self._exporting = False
        proto, self.weights = small_proto(model, lambda _: True)
        _clear_types_that_crash(proto)
        with self._quiet():
            try:
                self.graph = gs.import_onnx(proto)
            except Exception as error:
                raise RefusalError(f"onnx-graphsurgeon cannot read this model: {error}") from error
        self._stored = self._stored_values()
        self._attach_weights()
        self.origins = Origins(model, self.graph)
        self.baseline = self.export(self.graph)
        """What graphsurgeon makes of the model if nobody changes it."""
        self.said = self._said()
        """How each node was written before anybody changed it."""

    @property
    def graph_class(self) -> type[Any]:
        """``onnx_graphsurgeon.Graph``."""
        found: type[Any] = self._gs.Graph
        return found

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        from onnx_graphsurgeon.logger import G_LOGGER

        with G_LOGGER.suppress(G_LOGGER.ERROR):
            yield

    def _said(self) -> dict[ir.Node, bytes]:
        found = {}
        for written, foreign in paired_protos(self.baseline, self.graph):
            for node_proto, node in aligned_nodes(written, foreign):
                found[self.origins.nodes[id(node)]] = node_proto.SerializeToString(deterministic=True)
        return found

    def _stored_values(self) -> Any:
        """The class of a weight that stays where it is; made here because its base is graphsurgeon's."""
        from onnx_graphsurgeon.ir.tensor import LazyValues

        bridge = self

        class StoredValues(LazyValues):  # type: ignore[misc]
            """One tensor of the model, read when someone asks for its values."""

            def __init__(self, index: int, shape: Any, dtype: Any, nbytes: int) -> None:
                self.index, self.shape, self.dtype, self.nbytes = index, shape, dtype, nbytes

            @property
            def tensor(self) -> onnx.TensorProto:
                """A mark while we export; the whole tensor for whoever else exports, graphsurgeon's folding for one.

                A new one each time: graphsurgeon writes the name of the constant into it.
                """
                weight = bridge.weights[self.index]
                return _mark(weight, self.index) if bridge._exporting else ir.serde.serialize_tensor(weight)

            def load(self) -> Any:
                array = np.array(bridge.weights[self.index].numpy())
                bridge._loaded[id(array)] = (weakref.ref(array), self.index)
                return array

        return StoredValues

    def _constants(self, graph: Any) -> Iterator[Any]:
        """Every constant of a graph, in tensors and attributes, in every graph; some more than once."""
        for each, _ in graphs_of(graph):
            tensors = [*each.inputs, *each.outputs]
            for node in each.nodes:
                tensors += [*node.inputs, *node.outputs, *node.attrs.values()]
            yield from (tensor for tensor in tensors if isinstance(tensor, self._gs.Constant))

    def _attach_weights(self) -> None:
        for constant in self._constants(self.graph):
            lazy = constant._values
            if isinstance(lazy, self._stored):
                continue
            stub = lazy.tensor
            if isinstance(stub, onnx.SparseTensorProto):
                self._sparse[id(constant)] = (constant, lazy)
                continue
            index = _index_of(stub)
            if index is not None:
                constant._values = self._stored(index, tuple(stub.dims), lazy.dtype, lazy.nbytes)
                constant.data_location = None

    def _store_arrays(self, graph: Any) -> None:
        """Turn arrays that the function looked at or made into marks; graphsurgeon would copy them, some wrongly."""
        for constant in self._constants(graph):
            array = constant._values
            if not isinstance(array, np.ndarray) or constant._export_dtype not in (None, array.dtype):
                continue
            _, sparse = self._sparse.get(id(constant), (None, None))
            if sparse is not None and np.array_equal(sparse.load(), array):
                constant._values = sparse  # it was looked at, which made it dense
                continue
            index = self._unchanged(array)
            if index is None:
                index = len(self.weights)
                self.weights.append(_tensor_of(array))
            constant._values = self._stored(index, array.shape, array.dtype, array.nbytes)
            constant.data_location = None

    def _unchanged(self, array: np.ndarray[Any, Any]) -> int | None:
        """The index of the tensor that an array was read from, if it still holds the same."""
        reference, index = self._loaded.get(id(array), (lambda: None, 0))
        if reference() is not array:
            return None
        original: Any = self.weights[index].numpy()
        same = original.dtype == array.dtype and original.shape == array.shape
        if not same or (array.dtype != object and original.tobytes() != array.tobytes()):
            return None
        return index if array.dtype != object or np.array_equal(original, array) else None

    def export(self, graph: Any) -> onnx.ModelProto:
        """A ModelProto whose tensors are marks for :attr:`weights`.

        Raises:
            SurgeonError: graphsurgeon cannot write the graph.
        """
        self._store_arrays(graph)
        empty_lists = _take_empty_lists(graph)
        hidden = [t for each, _ in graphs_of(graph) for t in _odd_tensors(each)]
        dtypes = [tensor.dtype for tensor in hidden]
        for tensor in hidden:
            tensor.dtype = None
        self._exporting = True
        try:
            with self._quiet():
                proto: onnx.ModelProto = self._gs.export_onnx(graph, do_type_check=False)
        except Exception as error:
            raise SurgeonError(f"onnx-graphsurgeon cannot write the graph: {type(error).__name__}: {error}") from error
        finally:
            self._exporting = False
            for tensor, dtype in zip(hidden, dtypes, strict=True):
                tensor.dtype = dtype
            for node, name, value in empty_lists:
                node.attrs[name] = value
        self._put_empty_lists(proto, graph)
        return proto

    def _put_empty_lists(self, proto: onnx.ModelProto, graph: Any) -> None:
        """Write attributes that are empty lists, whose type graphsurgeon cannot guess."""
        for written, foreign in paired_protos(proto, graph):
            for node_proto, node in aligned_nodes(written, foreign):
                for name, value in node.attrs.items():
                    if isinstance(value, (list, tuple)) and not value:
                        origin = self.origins.node(node)
                        known = origin.attributes.get(name) if origin is not None else None
                        kind = _LISTS.get(known.type, onnx.AttributeProto.INTS) if known else onnx.AttributeProto.INTS
                        node_proto.attribute.add(name=name, type=kind)


def paired_protos(proto: onnx.ModelProto, graph: Any) -> Iterator[tuple[Any, Any]]:
    """Each GraphProto and FunctionProto of an exported model with the graph of graphsurgeon it was made of."""
    stack: list[tuple[Any, Any]] = [(proto.graph, graph), *zip(proto.functions, graph.functions, strict=True)]
    while stack:
        written, foreign = stack.pop()
        yield written, foreign
        for node_proto, node in aligned_nodes(written, foreign):
            inner = dict(proto_bodies(node_proto))
            stack.extend((inner[name], body) for name, body in bodies(node))


def aligned_nodes(written: Any, foreign: Any) -> Iterator[tuple[onnx.NodeProto, Any]]:
    """Each NodeProto with its node; those in front, that hold the constants of a function, have none."""
    extra = len(written.node) - len(foreign.nodes)
    return zip(list(written.node)[extra:], foreign.nodes, strict=True)


def _mark(tensor: ir.TensorProtocol, index: int) -> onnx.TensorProto:
    proto = onnx.TensorProto(
        data_type=tensor.dtype.value, dims=tensor.shape.numpy(), data_location=onnx.TensorProto.EXTERNAL
    )
    for key, value in (("location", MARK), ("offset", str(index)), ("length", "0")):
        proto.external_data.add(key=key, value=value)
    return proto


def _index_of(proto: onnx.TensorProto) -> int | None:
    entries = {entry.key: entry.value for entry in proto.external_data}
    return int(entries["offset"]) if entries.get("location") == MARK else None


def unmarked(tensor: ir.TensorProtocol, weights: list[ir.TensorProtocol]) -> ir.TensorProtocol:
    """The tensor that a mark stands for, under the name that the mark has; any other tensor as it is."""
    if not isinstance(tensor, ir.ExternalTensor) or tensor.location != MARK:
        return tensor
    weight = weights[tensor.offset or 0]
    if (weight.name or "") == (tensor.name or ""):
        return weight
    named = copy.copy(weight)
    named.name = tensor.name
    return named


def _tensor_of(array: Any) -> ir.TensorProtocol:
    if array.dtype.kind in "OSU":
        encoded = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1)]
        return ir.StringTensor(encoded, shape=ir.Shape(array.shape))
    return ir.Tensor(np.ascontiguousarray(array).reshape(array.shape))


def _odd_tensors(graph: Any) -> list[Any]:
    """Variables of a graph whose kind of type graphsurgeon cannot write: it would crash or write another type."""
    found = {}
    for tensor in [*graph.inputs, *graph.outputs, *(t for node in graph.nodes for t in [*node.inputs, *node.outputs])]:
        look = look_of(tensor)
        if look is not None and look[0] is not None and look[2] not in ("tensor_type", "sequence_type"):
            found[id(tensor)] = tensor
    return list(found.values())


def _take_empty_lists(graph: Any) -> list[tuple[Any, str, Any]]:
    found = [
        (node, name, value)
        for each, _ in graphs_of(graph)
        for node in each.nodes
        for name, value in node.attrs.items()
        if isinstance(value, (list, tuple)) and not value
    ]
    for node, name, _ in found:
        del node.attrs[name]
    return found


def _clear_types_that_crash(proto: onnx.ModelProto) -> None:
    """Take types that graphsurgeon crashes on out of a model that is made for it alone."""
    stack = [proto.graph]
    for function in proto.functions:
        stack += [body for node in function.node for _, body in proto_bodies(node)]
    while stack:
        graph = stack.pop()
        for info in [*graph.input, *graph.output, *graph.value_info]:
            if info.type.WhichOneof("value") in ("optional_type", "map_type", "opaque_type"):
                info.ClearField("type")
        for node in graph.node:
            if any(a.type == onnx.AttributeProto.GRAPHS for a in node.attribute):
                raise RefusalError(
                    f"node '{node.name}' holds a list of graphs, which onnx-graphsurgeon would drop", where="gs"
                )
            stack += [body for _, body in proto_bodies(node)]
