"""Write a network node by node: every node and tensor named, weights from a seed that behave like trained ones.

Weights drawn from a plain normal distribution make every channel alike, which no trained network is: here rows differ
in scale, tails are heavy, norms have a few large gains. The scales still keep activations near one at any depth.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray
Dims = Sequence[int | str]


class Net:
    """One graph under construction; names follow the exporters: ``/layer.0/attn/MatMul`` makes ``..._output_0``.

    Args:
        name: Name of the graph.
        seed: Decides every weight.
        opset: Version of the default operator set.
        outer: The network whose body this one is; weights and the names come from there.
    """

    def __init__(self, name: str, seed: int, *, opset: int = 17, outer: Net | None = None) -> None:
        self.name, self.opset, self.outer = name, opset, outer
        self.rng: np.random.Generator = outer.rng if outer else np.random.default_rng([seed, len(name)])
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[str | onnx.ValueInfoProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._counts: dict[str, int] = outer._counts if outer else {}
        self._path: list[str] = list(outer._path) if outer else []

    @contextlib.contextmanager
    def scope(self, part: str) -> Iterator[None]:
        """Put the nodes made inside under ``part``."""
        self._path.append(part)
        yield
        self._path.pop()

    def fresh(self, what: str) -> str:
        """The path of the current scope and ``what``, numbered from the second on."""
        base = "/" + "/".join([*self._path, what])
        count = self._counts.get(base, 0)
        self._counts[base] = count + 1
        return f"{base}_{count}" if count else base

    def input(self, name: str, dims: Dims, dtype: int = TensorProto.FLOAT) -> str:
        """Declare an input."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, list(dims)))
        return name

    def output(self, value: str, name: str | None = None) -> str:
        """Declare an output; its type is inferred. With ``name``, an Identity gives it that name."""
        if name:
            self.nodes.append(helper.make_node("Identity", [value], [name], name=self.fresh("Identity")))
        self.outputs.append(name or value)
        return name or value

    def op(self, op_type: str, *inputs: str, count: int = 1, domain: str = "", **attributes: object) -> str:
        """Append a node; its first output."""
        return self.ops(op_type, *inputs, count=count, domain=domain, **attributes)[0]

    def ops(self, op_type: str, *inputs: str, count: int = 1, domain: str = "", **attributes: object) -> list[str]:
        """Append a node with ``count`` outputs; all of them."""
        name = self.fresh(op_type)
        outputs = [f"{name}_output_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, name=name, domain=domain, **attributes))
        return outputs

    def constant(self, array: Array | Sequence[int] | float, what: str = "constant") -> str:
        """An initializer; integers become int64, floats float32."""
        data = np.asarray(array)
        if data.dtype == np.float64:
            data = data.astype(np.float32)
        name = self.fresh(what).lstrip("/").replace("/", ".")
        self.initializers.append(numpy_helper.from_array(np.array(data, order="C"), name))
        return name

    def matrix(self, rows: int, columns: int, gain: float = 1.0, what: str = "weight") -> str:
        """A weight for MatMul that keeps the variance of ``rows`` inputs, times ``gain`` squared."""
        return self.constant(self._draw((rows, columns), rows, gain, axis=1), what)

    def kernel(self, out: int, inside: int, size: int, gain: float = 1.0, what: str = "weight") -> str:
        """A weight for Conv: ``out`` channels from ``inside`` (of one group), square."""
        shape = (out, inside, size, size)
        return self.constant(self._draw(shape, inside * size * size, gain, axis=0), what)

    def _draw(self, shape: tuple[int, ...], fan_in: int, gain: float, axis: int) -> Array:
        # Student's t with 6 degrees of freedom has variance 1.5.
        weights = self.rng.standard_t(6, shape) * (gain / np.sqrt(1.5 * fan_in))
        scales = np.exp(self.rng.normal(0, 0.25, shape[axis]))
        return weights * scales.reshape([-1 if i == axis else 1 for i in range(len(shape))])

    def bias(self, size: int, scale: float = 0.1) -> str:
        """A vector of small numbers."""
        return self.constant(self.rng.normal(0, scale, size), "bias")

    def gains(self, size: int, centre: float = 1.0, outliers: int = 0) -> str:
        """Positive factors around ``centre``, ``outliers`` of them five times as large."""
        values = centre * np.exp(self.rng.normal(0, 0.2, size))
        values[self.rng.choice(size, outliers, replace=False)] *= 5
        return self.constant(values, "gain")

    def body(self, name: str) -> Net:
        """A graph to be an attribute of a node of this one; its names are unique in both."""
        return Net(name, 0, opset=self.opset, outer=self)

    def graph(self) -> onnx.GraphProto:
        """What was built, as the body of a node: its outputs must be typed (give them to :meth:`typed_output`)."""
        return helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.initializers)

    def typed_output(self, value: str, dims: Dims, dtype: int = TensorProto.FLOAT) -> None:
        """Declare an output of a body."""
        self.outputs.append(helper.make_tensor_value_info(value, dtype, list(dims)))

    def model(self) -> onnx.ModelProto:
        """What was built, checked, with all types and shapes that inference finds."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, [], self.initializers)
        imports = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10, producer_name="planted-layers")
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        known = {info.name: info for info in model.graph.value_info}
        for output in self.outputs:
            assert isinstance(output, str)
            model.graph.output.append(known.pop(output))
        del model.graph.value_info[:]
        model.graph.value_info.extend(known.values())
        onnx.checker.check_model(model, full_check=True)
        return model
