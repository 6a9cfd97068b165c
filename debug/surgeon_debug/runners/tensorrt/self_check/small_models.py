"""Small models that between them hold what TensorRT treats in ways of its own, with seeded weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CONV, MLP, ATTENTION, LOOP, NONZERO, PLUGIN = "conv", "mlp", "attention", "loop", "nonzero", "plugin"
FIVE = (CONV, MLP, ATTENTION, LOOP, NONZERO)
"""The models that are compared and pinned."""

_FLOAT, _INT64, _BOOL = 1, 7, 9  # TensorProto.DataType
_WIDTH, _HEADS, _TOKENS = 64, 4, 32


def write_models(folder: Path) -> dict[str, Path]:
    """Write all of them.

    Args:
        folder: Where to.

    Returns:
        The files by name.
    """
    import onnx

    found = {}
    for name, make in _MAKERS.items():
        found[name] = folder / f"{name}.onnx"
        onnx.save(make(), str(found[name]))
    return found


def _weights(name: str, *shape: int) -> Any:
    import onnx

    rng = np.random.default_rng([len(name), *name.encode(), *shape])
    scale = 1.0 / np.sqrt(max(1, int(np.prod(shape[1:] if len(shape) == 4 else shape[:1]))))
    return onnx.numpy_helper.from_array((rng.standard_normal(shape) * scale).astype(np.float32), name)


def _constant(name: str, *values: int) -> Any:
    import onnx

    return onnx.numpy_helper.from_array(np.array(values, np.int64), name)


_Port = tuple[str, int, Sequence[int | str]]


def _model(nodes: Sequence[Any], inputs: Sequence[_Port], outputs: Sequence[_Port], constants: Sequence[Any]) -> Any:
    from onnx import helper

    graph = helper.make_graph(
        list(nodes),
        "main",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _conv() -> Any:
    """Convolutions with what is fused into them, a residual, pooling and a product."""
    from onnx.helper import make_node as node

    nodes = [
        node("Conv", ["x", "w1"], ["c1"], name="conv1", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=[1] * 4),
        node("Add", ["c2", "r1"], ["a2"], name="add2"),
        node("Relu", ["a2"], ["r2"], name="relu2"),
        node("GlobalAveragePool", ["r2"], ["g"], name="pool"),
        node("Flatten", ["g"], ["f"], name="flatten"),
        node("Gemm", ["f", "k", "b"], ["m"], name="classify"),
        node("Softmax", ["m"], ["y"], name="softmax"),
    ]
    constants = [_weights("w1", 32, 3, 3, 3), _weights("w2", 32, 32, 3, 3), _weights("k", 32, 10), _weights("b", 10)]
    return _model(nodes, [("x", _FLOAT, [2, 3, 32, 32])], [("y", _FLOAT, [2, 10])], constants)


def _mlp() -> Any:
    """Three products with a bias and a gate each."""
    from onnx.helper import make_node as node

    nodes: list[Any] = []
    constants: list[Any] = []
    now = "x"
    for i in range(3):
        nodes += [
            node("MatMul", [now, f"w{i}"], [f"m{i}"], name=f"product{i}"),
            node("Add", [f"m{i}", f"b{i}"], [f"a{i}"], name=f"bias{i}"),
            node("Sigmoid", [f"a{i}"], [f"s{i}"], name=f"sigmoid{i}"),
            node("Mul", [f"a{i}", f"s{i}"], [f"u{i}"], name=f"gate{i}"),
        ]
        constants += [_weights(f"w{i}", _WIDTH, _WIDTH), _weights(f"b{i}", _WIDTH)]
        now = f"u{i}"
    return _model(nodes, [("x", _FLOAT, [16, _WIDTH])], [(now, _FLOAT, [16, _WIDTH])], constants)


def _attention() -> Any:
    """One block of attention over heads, with its residual and normalisation."""
    from onnx.helper import make_node as node

    split = [1, _TOKENS, _HEADS, _WIDTH // _HEADS]
    nodes: list[Any] = []
    constants = [_constant("split", *split), _constant("join", 1, _TOKENS, _WIDTH)]
    for part, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            node("MatMul", ["x", f"w{part}"], [f"{part}0"], name=f"product_{part}"),
            node("Reshape", [f"{part}0", "split"], [f"{part}1"], name=f"split_{part}"),
            node("Transpose", [f"{part}1"], [f"{part}2"], name=f"turn_{part}", perm=order),
        ]
        constants.append(_weights(f"w{part}", _WIDTH, _WIDTH))
    nodes += [
        node("MatMul", ["q2", "k2"], ["scores"], name="scores"),
        node("Mul", ["scores", "scale"], ["scaled"], name="scale_scores"),
        node("Softmax", ["scaled"], ["weights"], name="attend", axis=-1),
        node("MatMul", ["weights", "v2"], ["mixed"], name="mix"),
        node("Transpose", ["mixed"], ["turned"], name="turn_back", perm=[0, 2, 1, 3]),
        node("Reshape", ["turned", "join"], ["joined"], name="join_heads"),
        node("MatMul", ["joined", "wo"], ["out"], name="product_out"),
        node("Add", ["out", "x"], ["sum"], name="residual"),
        node("LayerNormalization", ["sum", "gamma", "beta"], ["y"], name="normalise"),
    ]
    constants += [_weights("wo", _WIDTH, _WIDTH), _weights("gamma", _WIDTH), _weights("beta", _WIDTH)]
    constants.append(_weights("scale", 1))
    shape = [1, _TOKENS, _WIDTH]
    return _model(nodes, [("x", _FLOAT, shape)], [("y", _FLOAT, shape)], constants)


def _loop() -> Any:
    """A loop of three rounds with a product in its body."""
    import onnx
    from onnx import helper
    from onnx.helper import make_node as node

    shape = [4, 8]
    body = helper.make_graph(
        [
            node("Identity", ["go"], ["go_on"], name="keep"),
            node("MatMul", ["carried", "w"], ["turned"], name="turn"),
            node("Add", ["turned", "x"], ["next"], name="plus"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", _INT64, []),
            helper.make_tensor_value_info("go", _BOOL, []),
            helper.make_tensor_value_info("carried", _FLOAT, shape),
        ],
        [helper.make_tensor_value_info("go_on", _BOOL, []), helper.make_tensor_value_info("next", _FLOAT, shape)],
    )
    nodes = [
        node("Loop", ["rounds", "", "x"], ["z"], name="loop", body=body),
        node("Tanh", ["z"], ["y"], name="tanh"),
    ]
    rounds = onnx.numpy_helper.from_array(np.array(3, np.int64), "rounds")
    return _model(nodes, [("x", _FLOAT, shape)], [("y", _FLOAT, shape)], [rounds, _weights("w", 8, 8)])


def _nonzero() -> Any:
    """An output whose size depends on the values."""
    from onnx.helper import make_node as node

    nodes = [node("Relu", ["x"], ["r"], name="relu"), node("NonZero", ["r"], ["y"], name="nonzero")]
    return _model(nodes, [("x", _FLOAT, [4, 8])], [("y", _INT64, [2, "found"])], [])


def _plugin() -> Any:
    """An operator that the parser makes a plugin of."""
    from onnx.helper import make_node as node

    nodes = [
        node(
            "RoiAlign",
            ["x", "rois", "batch"],
            ["y"],
            name="align",
            output_height=2,
            output_width=2,
            sampling_ratio=2,
            coordinate_transformation_mode="half_pixel",
        )
    ]
    inputs: list[_Port] = [("x", _FLOAT, [1, 4, 8, 8]), ("rois", _FLOAT, [2, 4])]
    return _model(nodes, inputs, [("y", _FLOAT, [2, 4, 2, 2])], [_constant("batch", 0, 0)])


_MAKERS: Mapping[str, Callable[[], Any]] = {
    CONV: _conv,
    MLP: _mlp,
    ATTENTION: _attention,
    LOOP: _loop,
    NONZERO: _nonzero,
    PLUGIN: _plugin,
}
