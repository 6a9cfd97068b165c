"""From the nodes of the network to the layers of the engine: what is fused with what, and what it is called then."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import onnx

from tests.simulated_tensorrt.graph import Graph, reads

_ACTIVATIONS = {"Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "Elu", "HardSwish", "HardSigmoid", "Gelu", "Swish"}
_POINTWISE = _ACTIVATIONS | {
    "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Erf", "Neg", "Abs", "Reciprocal", "Max", "Min", "Where",
    "Sin", "Cos", "Floor", "Ceil", "Round", "Sign", "Softplus", "Softsign", "Selu", "PRelu", "Not", "And", "Or",
    "Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual", "ThresholdedRelu", "Mish", "BatchNormalization",
}  # fmt: skip
_REDUCTIONS = {
    "Softmax", "LogSoftmax", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "LayerNormalization",
    "InstanceNormalization", "RMSNormalization", "GroupNormalization",
}  # fmt: skip
_SHAPE = {"Shape", "Size", "ConstantOfShape", "Range"}
_CONVOLUTIONS = {"Conv", "ConvTranspose"}
_PRODUCTS = {"MatMul", "Gemm", "Einsum"}
_POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
_ALONE = {"Loop", "Scan", "If", "NonZero", "NonMaxSuppression", "TopK"}
TENSORRT_MARK, MYELIN_MARK = "\x1e", "\x1f"
"""What stands between the pieces of a layer's metadata, by the backend that fused them."""


@dataclasses.dataclass
class Group:
    """One layer of the engine."""

    kind: str
    """conv, product, kgen, pool, shape or alone."""
    nodes: list[int]
    """Indices of its nodes, in order."""
    name: str = ""
    """Its name, filled when all groups are known."""

    @property
    def myelin(self) -> bool:
        """Whether the compiler's backend makes it."""
        return self.kind in ("product", "kgen")


def groups_of(graph: Graph, knobs: Mapping[str, str], level: int, apart: Collection[str]) -> list[Group]:
    """All layers of the engine, in an order in which they can run.

    Args:
        graph: The network.
        knobs: The value of each knob of the build route.
        level: The builder's optimisation level; at 0 no kernels are generated for runs of pointwise operators.
        apart: Tensors that must be seen, which nothing is fused across: marked ones and outputs.
    """
    walk = _Walk(graph, knobs, level, set(apart) | set(graph.outputs))
    groups = walk.all()
    _name(groups, graph)
    return groups


class _Walk:
    def __init__(self, graph: Graph, knobs: Mapping[str, str], level: int, apart: set[str]) -> None:
        self.graph = graph
        self.knobs = knobs
        self.level = level
        self.apart = apart
        self.readers = graph.readers()
        self.producers = graph.producers()
        self.owner: dict[int, Group] = {}

    def on(self, knob: str) -> bool:
        return self.knobs.get(knob, "on") == "on"

    def all(self) -> list[Group]:
        groups = []
        for index, node in enumerate(self.graph.nodes):
            if index not in self.owner and node.op_type in _CONVOLUTIONS | _PRODUCTS:
                groups.append(self._grown(Group("conv" if node.op_type in _CONVOLUTIONS else "product", [index])))
        for index, node in enumerate(self.graph.nodes):
            if index not in self.owner:
                groups.append(self._grown(Group(_kind(node.op_type, self.graph.types.get(node.output[0])), [index])))
        return sorted(groups, key=lambda group: group.nodes[-1])

    def _grown(self, group: Group) -> Group:
        if group.kind in ("conv", "product") and self.on("-qdq_fusion"):
            self._absorb(group)
        self.owner.update(dict.fromkeys(group.nodes, group))
        while (follower := self._follower(group)) is not None:
            group.nodes.append(follower)
            self.owner[follower] = group
        return group

    def _absorb(self, group: Group) -> None:
        """Take in the quantisation of the operands, as long as nobody else reads it."""
        head = group.nodes[0]
        for name in list(self.graph.nodes[head].input):
            chain: list[int] = []
            while name in self.producers and self.readers.get(name, []) == [chain[0] if chain else head]:
                index = self.producers[name]
                wanted = "QuantizeLinear" if chain else "DequantizeLinear"
                if self.graph.nodes[index].op_type != wanted or name in self.apart or index in self.owner:
                    break
                chain.insert(0, index)
                name = self.graph.nodes[index].input[0]
                if len(chain) == 2:
                    break
            group.nodes[:0] = chain
        group.nodes.sort()

    def _follower(self, group: Group) -> int | None:
        tail = self.graph.nodes[group.nodes[-1]]
        outputs = [name for name in tail.output if name]
        if len(outputs) != 1 or outputs[0] in self.apart:
            return None
        following = self.readers.get(outputs[0], [])
        if len(following) != 1 or following[0] in self.owner:
            return None
        node = self.graph.nodes[following[0]]
        if any(name in self.apart and name == outputs[0] for name in reads(node)):
            return None
        return following[0] if self._may_join(group, node) else None

    def _may_join(self, group: Group, node: onnx.NodeProto) -> bool:
        operators = [self.graph.nodes[i].op_type for i in group.nodes]
        if group.kind == "conv":
            return self._joins_conv(operators, node.op_type)
        if group.kind == "product":
            return self._joins_product(operators, node)
        if group.kind != "kgen" or self.level == 0 or not self.on("-kgen:fuse_pointwise"):
            return False
        if node.op_type == "Cast":
            return self.on("-kgen:fuse_cast") and self._floating(node)
        if "Cast" in operators and not self.on("-kgen:fuse_cast"):
            return False
        if node.op_type in _REDUCTIONS:
            return self.on("-kgen:fuse_reduce") and not set(operators) & _REDUCTIONS
        if set(operators) & _REDUCTIONS and not self.on("-kgen:fuse_reduce"):
            return False
        return node.op_type in _POINTWISE and self._floating(node)

    def _joins_conv(self, operators: list[str], operator: str) -> bool:
        if set(operators) & _ACTIVATIONS:
            return False
        if operator == "BatchNormalization":
            return self.on("-conv_scale_fusion") and "Add" not in operators
        if operator == "Add":
            return self.on("-conv_add_fusion") and "Add" not in operators
        return operator in _ACTIVATIONS and self.on("-conv_act_fusion")

    def _joins_product(self, operators: list[str], node: onnx.NodeProto) -> bool:
        if set(operators) & _ACTIVATIONS:
            return False
        if node.op_type == "Add":
            constant = any(name in self.graph.constants for name in node.input)
            return constant and self.on("-fc_bias_fusion") and "Add" not in operators
        return node.op_type in _ACTIVATIONS and self.on("-fc_act_fusion")

    def _floating(self, node: onnx.NodeProto) -> bool:
        return self.graph.types.get(node.output[0], "FLOAT") in ("FLOAT", "HALF", "BF16", "BOOL")


def _kind(operator: str, kind: str | None) -> str:
    if operator in _SHAPE or (kind in ("INT32", "INT64") and operator not in _ALONE):
        return "shape"
    if operator in _POOLS:
        return "pool"
    return "kgen" if operator in _POINTWISE | _REDUCTIONS | {"Cast"} else "alone"


def _name(groups: list[Group], graph: Graph) -> None:
    region, place = -1, 0
    inside = False
    for group in groups:
        names = [graph.nodes[i].name for i in group.nodes]
        if not group.myelin:
            inside = False
            joined = " + ".join(names)
            group.name = f"{joined}_shape_call" if group.kind == "shape" else joined
            continue
        if not inside:
            region, place, inside = region + 1, 0, True
        if group.kind == "product":
            head = next(i for i in group.nodes if graph.nodes[i].op_type in _PRODUCTS)
            group.name = f"{graph.nodes[head].name}_myl{region}_{place}"
        else:
            short = "".join(graph.nodes[i].op_type[:4].capitalize() for i in group.nodes)[:48]
            group.name = f"__myl_{short}_myl{region}_{place}"
        place += 1


def metadata_of(group: Group, graph: Graph) -> str:
    """The way back from a layer to ONNX nodes."""
    mark = MYELIN_MARK if group.myelin else TENSORRT_MARK
    return mark.join(f"[ONNX Layer: {graph.nodes[i].name}]" for i in group.nodes)
