"""Build the large models of the benchmarks: three with gigabytes of external weights, three kinds with many nodes.

- ``mlp_2100MB/model.onnx`` and ``mlp_4400MB/model.onnx``: layers of MatMul, Add, Relu with 67 MB of weights each, in
  one data file that is written layer by layer, so that building needs the memory of one layer.
- ``decoder_4400MB/model.onnx``: 1.1 billion parameters and 1,600 tensors in between, see :mod:`build_decoder`.
- ``chain_N.onnx``: one long path of element-wise operators.
- ``branching_N.onnx``: diamonds of four branches that join again.
- ``mixed_N.onnx``: blocks with something for every pass: foldable constants, shape arithmetic, no-ops, inverse pairs,
  duplicates, dead nodes, a convolution before a BatchNormalization, and now and then an If.

N counts nodes of the main graph: 2,000 and 20,000. Run: ``python tests/bench/build_large.py FOLDER [PART ...]``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from build_decoder import build_decoder
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
WIDTH = 4096
LAYER_BYTES = WIDTH * WIDTH * 4
MLPS = {"mlp_2100MB": 32, "mlp_4400MB": 66}
DECODER = "decoder_4400MB"
GRAPHS = ("chain", "branching", "mixed")
SIZES = (2_000, 20_000)
PARTS = (*MLPS, DECODER, *GRAPHS)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _external(name: str, dims: list[int], location: str, offset: int, length: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def build_mlp(folder: Path, layers: int, seed: int = 0) -> Path:
    """Write ``FOLDER/model.onnx`` and ``FOLDER/model.data``: ``layers`` layers of one 4096 x 4096 matrix each."""
    folder.mkdir(parents=True, exist_ok=True)
    block = np.random.default_rng(seed).standard_normal(WIDTH * WIDTH, dtype=np.float32) / np.float32(np.sqrt(WIDTH))
    bias = np.linspace(-0.1, 0.1, WIDTH, dtype=np.float32)
    nodes, initializers, value, offset = [], [], "x", 0
    with (folder / "model.data").open("wb") as data:
        for i in range(layers):
            # Rolling one random block makes layers that differ without drawing gigabytes of random numbers.
            data.write(np.roll(block, 977 * i).tobytes())
            data.write((bias * (i + 1)).tobytes())
            initializers += [
                _external(f"layer_{i}.weight", [WIDTH, WIDTH], "model.data", offset, LAYER_BYTES),
                _external(f"layer_{i}.bias", [WIDTH], "model.data", offset + LAYER_BYTES, bias.nbytes),
            ]
            offset += LAYER_BYTES + bias.nbytes
            nodes += [
                helper.make_node("MatMul", [value, f"layer_{i}.weight"], [f"mm_{i}"], name=f"/layer_{i}/MatMul"),
                helper.make_node("Add", [f"mm_{i}", f"layer_{i}.bias"], [f"add_{i}"], name=f"/layer_{i}/Add"),
                helper.make_node("Relu", [f"add_{i}"], [f"relu_{i}"], name=f"/layer_{i}/Relu"),
            ]
            value = f"relu_{i}"
    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        nodes,
        folder.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        initializers,
    )
    path = folder / "model.onnx"
    onnx.save_model(_model(graph), path)
    return path


class Blocks:
    """Collects the nodes and initializers of a graph over ``float[batch, 4, 6, 6]`` that keeps that shape."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.rng = np.random.default_rng(seed)

    def node(self, op: str, inputs: list[str], outputs: int = 1, **attributes: object) -> str:
        """Add a node and return its first output."""
        stem = f"{op}_{len(self.nodes)}"
        names = [f"{stem}_out{i or ''}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=stem, **attributes))
        return names[0]

    def weight(self, array: np.ndarray) -> str:
        """Add an initializer and return its name."""
        name = f"weight_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def small(self, *shape: int) -> str:
        """Add a random initializer near one, so that long products neither vanish nor overflow."""
        return self.weight((1 + 0.01 * self.rng.standard_normal(shape)).astype(np.float32))

    def tiny(self, *shape: int) -> str:
        """Add a random initializer near zero."""
        return self.weight((1e-3 * self.rng.standard_normal(shape)).astype(np.float32))

    def ints(self, *values: int) -> str:
        """Add an int64 initializer."""
        return self.weight(np.array(values, np.int64))


def chain_block(b: Blocks, x: str, index: int) -> str:
    """Five nodes in a row; near the identity, so that the input is still seen in the output."""
    del index
    x = b.node("Mul", [x, b.small(1, 4, 1, 1)])
    x = b.node("Sub", [x, b.tiny(1)])
    x = b.node("Neg", [x])
    x = b.node("Max", [x, b.weight(np.array(-1e3, np.float32))])
    return b.node("Min", [x, b.weight(np.array(1e3, np.float32))])


def branching_block(b: Blocks, x: str, index: int) -> str:
    """Four branches and their sum, ten nodes."""
    del index
    arms = [b.node("Mul", [b.node(op, [x]), b.tiny(1)]) for op in ("Sigmoid", "Tanh", "Softplus", "Relu")]
    return b.node("Neg", [b.node("Sum", [x, *arms])])


def _shape_arithmetic(b: Blocks, x: str) -> str:
    zero = b.ints(0)
    batch = b.node("Gather", [b.node("Shape", [x]), b.weight(np.array(0, np.int64))])
    target = b.node("Concat", [b.node("Unsqueeze", [batch, zero]), b.ints(4), b.ints(36)], axis=0)
    flat = b.node("Reshape", [x, target])
    return b.node("Reshape", [flat, b.node("Concat", [b.ints(-1), b.ints(4), b.ints(6), b.ints(6)], axis=0)])


def _branch(b: Blocks, op: str) -> onnx.GraphProto:
    out = f"{op}_branch_{len(b.nodes)}"
    info = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node(op, [b.nodes[-1].input[0]], [out], name=out)], out, [], [info])


def mixed_block(b: Blocks, x: str, index: int) -> str:
    """Twenty-five nodes with work for every pass; every twentieth block has an If."""
    weight = b.weight((0.3 * b.rng.standard_normal((4, 4, 1, 1))).astype(np.float32))
    x = b.node("Conv", [x, weight])
    x = b.node("BatchNormalization", [x, *(b.small(4) for _ in range(4))])
    constant = b.node("Constant", [], value=numpy_helper.from_array(np.array([0.25, 0.5, 0.75, 1], np.float32)))
    folded = b.node("Sqrt", [b.node("Add", [constant, b.small(4)])])
    x = b.node("Add", [x, b.node("Reshape", [folded, b.ints(1, 4, 1, 1)])])
    x = _shape_arithmetic(b, x)
    x = b.node("Transpose", [b.node("Transpose", [x], perm=[0, 2, 3, 1])], perm=[0, 3, 1, 2])
    x = b.node("Dropout", [b.node("Identity", [b.node("Cast", [x], to=TensorProto.FLOAT)])])
    x = b.node("Mul", [b.node("Sigmoid", [x]), b.node("Sigmoid", [x])])
    b.node("Exp", [x])
    small, large = b.weight(np.array(-1e4, np.float32)), b.weight(np.array(1e4, np.float32))
    x = b.node("Tanh", [b.node("Clip", [x, small, large])])
    if index % 20 == 0:
        condition = b.node("Greater", [b.node("ReduceMax", [x], keepdims=0), b.weight(np.array(0.5, np.float32))])
        b.nodes.append(helper.make_node("Identity", [x], [f"seen_{len(b.nodes)}"], name=f"seen_{len(b.nodes)}"))
        x = b.node("If", [condition], then_branch=_branch(b, "Relu"), else_branch=_branch(b, "Neg"))
    return x


BLOCKS = {"chain": chain_block, "branching": branching_block, "mixed": mixed_block}


def build_graph(kind: str, nodes: int, seed: int = 0) -> onnx.ModelProto:
    """A model of at least ``nodes`` nodes (by less than one block more) in blocks of ``kind``."""
    blocks, value, index = Blocks(seed), "x", 0
    while len(blocks.nodes) < nodes:
        value = BLOCKS[kind](blocks, value, index)
        index += 1
    shape = ["batch", 4, 6, 6]
    graph = helper.make_graph(
        blocks.nodes,
        f"{kind}_{nodes}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        blocks.initializers,
    )
    return _model(graph)


def build(folder: Path, part: str) -> Iterator[Path]:
    """Write one part by name and yield what was written."""
    if part in MLPS:
        yield build_mlp(folder / part, MLPS[part])
        return
    if part == DECODER:
        yield build_decoder(folder / part)
        return
    for size in SIZES:
        path = folder / f"{part}_{size}.onnx"
        onnx.save_model(build_graph(part, size), path)
        yield path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the models go")
    parser.add_argument("parts", nargs="*", help=f"which; all if none is given: {', '.join(PARTS)}")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts or PARTS:
        start = time.perf_counter()
        for path in build(arguments.folder, part):
            print(f"{path}  {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
