"""Which inputs hold shapes or other numbers that the host needs, and which tensors have sizes that depend on values."""

from __future__ import annotations

from tests.simulated_tensorrt.graph import Graph, reads

_SHAPE_OPERANDS = {
    "Reshape": (1,),
    "Expand": (1,),
    "Slice": (1, 2, 3, 4),
    "Range": (0, 1, 2),
    "Resize": (2, 3),
    "Tile": (1,),
    "ConstantOfShape": (0,),
    "Pad": (1,),
    "Upsample": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Split": (1,),
    "OneHot": (1,),
    "TopK": (1,),
    "Loop": (0,),
    "CenterCropPad": (1,),
    "RandomUniform": (),
}
_DATA_DEPENDENT = {"NonZero", "NonMaxSuppression", "Compress", "Unique", "Loop"}


def shape_inputs(graph: Graph) -> set[str]:
    """Inputs of the network whose values are needed to know shapes; they live on the host."""
    producers = graph.producers()
    wanted = [
        node.input[i]
        for node in graph.nodes
        for i in _SHAPE_OPERANDS.get(node.op_type, ())
        if i < len(node.input) and node.input[i]
    ]
    seen: set[str] = set()
    found: set[str] = set()
    inputs = {n for n in graph.inputs if graph.types.get(n) in ("INT32", "INT64", "BOOL")}
    inputs |= {n for n in graph.inputs if n in wanted}
    while wanted:
        name = wanted.pop()
        if name in seen or name in graph.constants:
            continue
        seen.add(name)
        if name in producers:
            node = graph.nodes[producers[name]]
            if node.op_type not in ("Shape", "Size", *_DATA_DEPENDENT):
                wanted += list(reads(node))
        elif name in inputs and len(graph.shapes.get(name) or ()) <= 1:
            found.add(name)
    return found


def data_dependent(graph: Graph) -> set[str]:
    """Tensors whose sizes depend on values that the host does not have."""
    found: set[str] = set()
    hosted = _from_host(graph)
    for node in graph.nodes:
        sizes = [node.input[i] for i in _SHAPE_OPERANDS.get(node.op_type, ()) if i < len(node.input)]
        by_value = any(name and name not in hosted for name in sizes)
        if node.op_type in _DATA_DEPENDENT or by_value or (node.op_type != "Size" and found & set(reads(node))):
            found |= set(node.output)
    return found


def _from_host(graph: Graph) -> set[str]:
    """Tensors that can be computed from shapes, constants and shape inputs."""
    known = set(graph.constants) | shape_inputs(graph)
    for node in graph.nodes:
        if node.op_type in ("Shape", "Size") or (
            node.op_type not in _DATA_DEPENDENT and all(name in known for name in reads(node))
        ):
            known |= set(node.output)
    return known
