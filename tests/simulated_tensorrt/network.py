"""The network: tensors, layers and what is marked on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.simulated_tensorrt.attributes import Named, Recorded
from tests.simulated_tensorrt.graph import Graph, reads
from tests.simulated_tensorrt.pybind import make
from tests.simulated_tensorrt.shape_inputs import shape_inputs

_KINDS: Mapping[str, str] = {
    "Conv": "CONVOLUTION",
    "ConvTranspose": "DECONVOLUTION",
    "MatMul": "MATRIX_MULTIPLY",
    "Gemm": "MATRIX_MULTIPLY",
    "MaxPool": "POOLING",
    "AveragePool": "POOLING",
    "GlobalAveragePool": "REDUCE",
    "BatchNormalization": "SCALE",
    "Softmax": "SOFTMAX",
    "Concat": "CONCATENATION",
    "Reshape": "SHUFFLE",
    "Transpose": "SHUFFLE",
    "Flatten": "SHUFFLE",
    "Squeeze": "SQUEEZE",
    "Unsqueeze": "UNSQUEEZE",
    "Gather": "GATHER",
    "Slice": "SLICE",
    "Cast": "CAST",
    "Shape": "SHAPE",
    "Identity": "IDENTITY",
    "NonZero": "NON_ZERO",
    "TopK": "TOPK",
    "Where": "SELECT",
    "LayerNormalization": "NORMALIZATION",
    "InstanceNormalization": "NORMALIZATION",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "Loop": "LOOP_OUTPUT",
    "Scan": "LOOP_OUTPUT",
    "If": "CONDITIONAL_OUTPUT",
    "Resize": "RESIZE",
    "Einsum": "EINSUM",
    "ScatterND": "SCATTER",
    "ScatterElements": "SCATTER",
    "ReduceMean": "REDUCE",
    "ReduceSum": "REDUCE",
    "ReduceMax": "REDUCE",
}
_UNARY = {"Exp", "Log", "Sqrt", "Reciprocal", "Abs", "Neg", "Sin", "Cos", "Tan", "Erf", "Floor", "Ceil", "Round", "Not"}
_ACTIVATIONS = {"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu", "Clip", "HardSigmoid", "Softplus", "Gelu"}


def layer_kind(operator: str) -> str:
    """Member of LayerType for an ONNX operator."""
    if operator in _UNARY:
        return "UNARY"
    return "ACTIVATION" if operator in _ACTIVATIONS else _KINDS.get(operator, "ELEMENTWISE")


class INetworkDefinition(Named, Recorded):
    """A network, filled by the parser."""

    _trt: Any
    _graph: Graph | None
    _outputs: list[str]
    _marked: list[str]
    _unfused: bool
    _tensors: dict[str, Any]
    _flags: int
    _builder: Any

    def _fill(self, graph: Graph) -> None:
        self._graph = graph
        self._outputs = list(graph.outputs)

    def _tensor(self, name: str) -> Any:
        if name not in self._tensors:
            self._tensors[name] = make(self._trt.ITensor, _network=self, _name=name, _formats=1)
        return self._tensors[name]

    def _layer(self, index: int) -> Any:
        graph = self._graph
        if graph is None or not 0 <= index < len(graph.nodes):
            return None
        return make(self._trt.ILayer, _network=self, _node=graph.nodes[index])

    def get_layer(self, index: int) -> Any:
        return self._layer(index)

    def __getitem__(self, arg0: int) -> Any:
        found = self._layer(arg0 + self.num_layers if arg0 < 0 else arg0)
        if found is None:
            raise IndexError("Out of bounds")
        return found

    def __len__(self) -> int:
        return self.num_layers

    def get_input(self, index: int) -> Any:
        names = self._graph.inputs if self._graph else []
        return self._tensor(names[index]) if 0 <= index < len(names) else None

    def get_output(self, index: int) -> Any:
        return self._tensor(self._outputs[index]) if 0 <= index < len(self._outputs) else None

    def mark_output(self, tensor: Any) -> None:
        if tensor._name not in self._outputs:
            self._outputs.append(tensor._name)

    def unmark_output(self, tensor: Any) -> None:
        if tensor._name in self._outputs:
            self._outputs.remove(tensor._name)

    def mark_debug(self, tensor: Any) -> bool:
        if tensor._name not in self._marked:
            self._marked.append(tensor._name)
        return True

    def unmark_debug(self, tensor: Any) -> bool:
        if tensor._name not in self._marked:
            return False
        self._marked.remove(tensor._name)
        return True

    def is_debug_tensor(self, tensor: Any) -> bool:
        return tensor._name in self._marked

    def mark_unfused_tensors_as_debug_tensors(self) -> bool:
        self._unfused = True
        return True

    def unmark_unfused_tensors_as_debug_tensors(self) -> bool:
        self._unfused = False
        return True

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags >> int(flag) & 1)

    @property
    def num_layers(self) -> int:
        return len(self._graph.nodes) if self._graph else 0

    @property
    def num_inputs(self) -> int:
        return len(self._graph.inputs) if self._graph else 0

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    @property
    def flags(self) -> int:
        return self._flags

    @property
    def builder(self) -> Any:
        return self._builder

    @property
    def has_implicit_batch_dimension(self) -> bool:
        return False


class ILayer:
    """A layer: here one for each ONNX node."""

    _trt: Any
    _network: Any
    _node: Any

    @property
    def name(self) -> str:
        return str(self._node.name)

    @name.setter
    def name(self, value: str) -> None:
        self._node.name = value

    @property
    def metadata(self) -> str:
        return f"[ONNX Layer: {self._node.name}]"

    @property
    def type(self) -> Any:
        return getattr(self._trt.LayerType, layer_kind(self._node.op_type))

    @property
    def num_inputs(self) -> int:
        return len(reads(self._node))

    @property
    def num_outputs(self) -> int:
        return len([name for name in self._node.output if name])

    def get_input(self, index: int) -> Any:
        names = reads(self._node)
        return self._network._tensor(names[index]) if 0 <= index < len(names) else None

    def get_output(self, index: int) -> Any:
        names = [name for name in self._node.output if name]
        return self._network._tensor(names[index]) if 0 <= index < len(names) else None

    def get_output_type(self, index: int) -> Any:
        return self.get_output(index).dtype

    # Of the weakly typed past: nothing is ever set, and setting is not played.

    @property
    def precision_is_set(self) -> bool:
        return False

    def output_type_is_set(self, index: int) -> bool:
        return False


class ITensor:
    """A tensor, known by its name in the ONNX model."""

    _trt: Any
    _network: Any
    _name: str
    _formats: int

    @property
    def name(self) -> str:
        return self._name

    @property
    def dtype(self) -> Any:
        return getattr(self._trt.DataType, self._network._graph.types.get(self._name, "FLOAT"))

    @property
    def shape(self) -> Any:
        return self._trt.Dims(list(self._network._graph.shapes.get(self._name) or ()))

    @property
    def is_network_input(self) -> bool:
        return self._name in self._network._graph.inputs

    @property
    def is_network_output(self) -> bool:
        return self._name in self._network._outputs

    @property
    def is_shape_tensor(self) -> bool:
        return self._name in shape_inputs(self._network._graph)

    @property
    def is_execution_tensor(self) -> bool:
        return not self.is_shape_tensor

    @property
    def location(self) -> Any:
        kinds = self._trt.TensorLocation
        return kinds.HOST if self.is_shape_tensor else kinds.DEVICE

    @property
    def allowed_formats(self) -> int:
        return self._formats

    @allowed_formats.setter
    def allowed_formats(self, value: int) -> None:
        self._formats = value

    def get_dimension_name(self, index: int) -> str:
        names = self._network._graph.dimension_names.get(self._name, ())
        return names[index] if 0 <= index < len(names) else ""
