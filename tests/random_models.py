"""Random valid models: branches, shared constants, bodies, a local function, odd dtypes, and noise to simplify.

``random_model(seed, size)`` gives the same model for the same arguments; ``models()`` is the hypothesis strategy.
Every model passes the checker, runs under onnxruntime with ``tests.numeric.feeds_of`` (symbol ``N`` is 2) and is
deterministic. Float values stay far from overflow, so that casts to integers are defined.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
INTS = (TensorProto.INT64, TensorProto.INT32)
STORED = (*FLOATS, *INTS, TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL)

Shape = tuple[int | str, ...]
Tensor = tuple[str, int, Shape]
"""Name, element type, shape; a dimension is a number or the symbol N."""


def random_model(seed: int, size: int = 25) -> onnx.ModelProto:
    """A random model of roughly ``size`` operators besides those of its bodies."""
    return _Builder(random.Random(seed)).model(size)


def models(max_size: int = 30) -> st.SearchStrategy[onnx.ModelProto]:
    """Random models for hypothesis; shrinks towards few operators."""
    return st.builds(random_model, seed=st.integers(0, 2**32 - 1), size=st.integers(1, max_size))


class _Builder:
    """One graph under construction; bodies get a builder of their own that sees the outer tensors."""

    def __init__(self, rng: random.Random, outer: _Builder | None = None) -> None:
        self.rng = rng
        self.outer = outer
        self.opset: int = outer.opset if outer else rng.choice([13, 17, 21])
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        # onnxruntime drops casts to and fro even without optimisation, and forgets that a body reads their result.
        self.casts: set[str] = outer.casts if outer else set()
        self.tensors: list[Tensor] = [t for t in outer.tensors if t[0] not in self.casts] if outer else []
        self.own: list[Tensor] = []
        self.constants: dict[tuple[int, Shape], list[str]] = {}
        self.counter: list[int] = outer.counter if outer else [0]

    def fresh(self, stem: str = "t") -> str:
        self.counter[0] += 1
        return f"{stem}{self.counter[0]}"

    def node(self, op: str, inputs: list[str], dtype: int, shape: Shape, **attributes: Any) -> Tensor:
        return self.multi(op, inputs, [(dtype, shape)], **attributes)[0]

    def multi(self, op: str, inputs: list[str], outputs: list[tuple[int, Shape]], **attributes: Any) -> list[Tensor]:
        made = [(self.fresh(), dtype, shape) for dtype, shape in outputs]
        name = self.fresh("n_") if self.rng.random() < 0.6 else None
        self.nodes.append(helper.make_node(op, inputs, [m[0] for m in made], name=name, **attributes))
        if op == "Cast":
            self.casts.update(m[0] for m in made)
        self.tensors += made
        self.own += made
        return made

    def constant(self, array: np.ndarray) -> str:
        """A constant as initializer or node; now and then one of equal content that exists already."""
        name = self.fresh("c")
        tensor = numpy_helper.from_array(array, name)
        if self.rng.random() < 0.75:
            self.initializers.append(tensor)
        else:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def weight(self, dtype: int, shape: Shape) -> str:
        """A small constant of few distinct contents, so that equal ones are common."""
        key = (dtype, shape)
        if key in self.constants and self.rng.random() < 0.3:
            return self.rng.choice(self.constants[key])
        dims = [2 if d == "N" else d for d in shape]
        kind = self.rng.choice(["zeros", "ones", "ramp", "negative"])
        ramp = (np.arange(int(np.prod(dims)), dtype=np.float64).reshape(dims) % 5) / 4
        array = {"zeros": ramp * 0, "ones": ramp * 0 + 1, "ramp": ramp, "negative": ramp * -0.0}[kind]
        name = self.constant(array.astype(helper.tensor_dtype_to_np_dtype(dtype)))
        self.constants.setdefault(key, []).append(name)
        return name

    def ints(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def pick(self, dtypes: tuple[int, ...] = STORED, rank: tuple[int, int] = (0, 9)) -> Tensor | None:
        found = [t for t in self.tensors if t[1] in dtypes and rank[0] <= len(t[2]) <= rank[1]]
        if not found:
            return None
        return self.rng.choice(found[-12:] if self.rng.random() < 0.8 else found)

    def unary(self) -> None:
        if t := self.pick(FLOATS):
            self.node(self.rng.choice(["Relu", "Neg", "Abs", "Sigmoid", "Tanh", "Neg"]), [t[0]], t[1], t[2])

    def binary(self) -> None:
        if t := self.pick((*FLOATS, *INTS)):
            same = [o[0] for o in self.tensors if o[1:] == t[1:]]
            # A symbolic dimension cannot meet a constant of its size: 2 would be right on one run only.
            small = tuple(1 if d == "N" or self.rng.random() < 0.4 else d for d in t[2])
            choices = [*self.rng.sample(same, min(2, len(same))), self.weight(t[1], ()), self.weight(t[1], small)]
            pair = [t[0], self.rng.choice(choices)]
            if self.rng.random() < 0.5:
                pair.reverse()
            op = self.rng.choice(["Add", "Sub", "Mul", "Add", "Mul", "Max"])
            made = self.node(op, pair, t[1], t[2])
            if op == "Mul" and t[1] in FLOATS:
                self.node("Tanh", [made[0]], t[1], t[2])

    def logic(self) -> None:
        if t := self.pick((TensorProto.BOOL,)):
            made = self.node("Not", [t[0]], t[1], t[2])
            self.node(self.rng.choice(["And", "Or", "Xor"]), [made[0], t[0]], t[1], t[2])
        if (t := self.pick((TensorProto.FLOAT, TensorProto.INT64))) and self.rng.random() < 0.6:
            mask = self.node("Greater", [t[0], self.weight(t[1], ())], TensorProto.BOOL, t[2])
            self.node("Where", [mask[0], t[0], self.weight(t[1], ())], t[1], t[2])

    def cast(self) -> None:
        if t := self.pick():
            to = self.rng.choice(STORED)
            source = t[0]
            if t[1] in FLOATS and to not in FLOATS:
                source = self.node("Sigmoid", [source], t[1], t[2])[0]
            made = self.node("Cast", [source], to, t[2], to=to)
            if self.rng.random() < 0.6 and source == t[0]:
                self.node("Cast", [made[0]], t[1], t[2], to=t[1])

    def transpose(self) -> None:
        if t := self.pick(rank=(1, 5)):
            perm = list(range(len(t[2])))
            if self.rng.random() < 0.7:
                self.rng.shuffle(perm)
            made = self.node("Transpose", [t[0]], t[1], tuple(t[2][p] for p in perm), perm=perm)
            if self.rng.random() < 0.6:
                back = [perm.index(i) for i in range(len(perm))]
                self.node("Transpose", [made[0]], t[1], t[2], perm=back)

    def reshape(self) -> None:
        if not (t := self.pick(rank=(1, 5))):
            return
        same = [d if isinstance(d, int) else self.rng.choice([0, -1]) for d in t[2]]
        if same.count(-1) == 0 and self.rng.random() < 0.3:
            same[self.rng.randrange(len(same))] = -1
        if same.count(-1) > 1:
            same = [0 if isinstance(d, str) else d for d in t[2]]
        if self.rng.random() < 0.5:
            self.node("Reshape", [t[0], self.ints(*same)], t[1], t[2])
        elif "N" not in t[2]:
            flat = self.node("Reshape", [t[0], self.ints(-1)], t[1], (int(np.prod(t[2])),))  # type: ignore[arg-type]
            self.node("Reshape", [flat[0], self.ints(*t[2])], t[1], t[2])  # type: ignore[arg-type]
        elif t[2][0] == "N" and t[2].count("N") == 1:
            rest = int(np.prod(t[2][1:]))  # type: ignore[arg-type]
            self.node("Reshape", [t[0], self.ints(-1, rest)], t[1], ("N", rest))

    def axes(self) -> None:
        if t := self.pick(rank=(0, 4)):
            axis = self.rng.randint(0, len(t[2]))
            axes = self.ints(axis)
            made = self.node("Unsqueeze", [t[0], axes], t[1], (*t[2][:axis], 1, *t[2][axis:]))
            if self.rng.random() < 0.7:
                self.node("Squeeze", [made[0], axes], t[1], t[2])

    def neutral(self) -> None:
        """One of the operators that change nothing as they are used here."""
        if not (t := self.pick(FLOATS, rank=(1, 4))):
            return
        rank = len(t[2])
        zeros = [0] * rank
        ways: list[Callable[[], tuple[str, list[str], dict[str, Any]]]] = [
            lambda: ("Slice", [t[0], self.ints(0), self.ints(2**63 - 1), self.ints(rank - 1)], {}),
            lambda: ("Pad", [t[0], self.ints(*zeros, *zeros)], {}),
            lambda: ("Concat", [t[0]], {"axis": 0}),
            lambda: ("Expand", [t[0], self.ints(*[1] * rank)], {}),
            lambda: ("Tile", [t[0], self.ints(*[1] * rank)], {}),
            lambda: ("Clip", [t[0]], {}),
            lambda: ("Dropout", [t[0]], {}),
            lambda: ("Sum", [t[0]], {}),
            lambda: ("Identity", [t[0]], {}),
            lambda: ("Mul", [t[0], self.constant(np.array(1, helper.tensor_dtype_to_np_dtype(t[1])))], {}),
        ]
        op, inputs, attributes = self.rng.choice(ways)()
        self.node(op, inputs, t[1], t[2], **attributes)

    def clip(self) -> None:
        if t := self.pick(FLOATS):
            high = self.weight(t[1], ())
            self.node("Clip", self.rng.choice([[t[0], "", high], [t[0], self.weight(t[1], ())]]), t[1], t[2])

    def split(self) -> None:
        if t := self.pick(FLOATS, rank=(1, 4)):
            axis = len(t[2]) - 1
            last = t[2][axis]
            if isinstance(last, int) and last >= 2:
                parts = [(t[1], (*t[2][:axis], 1)), (t[1], (*t[2][:axis], last - 1))]
                one, two = self.multi("Split", [t[0], self.ints(1, last - 1)], parts, axis=axis)
                if self.rng.random() < 0.7:
                    self.node("Concat", [one[0], two[0]], t[1], t[2], axis=axis)

    def dropout(self) -> None:
        if t := self.pick((TensorProto.FLOAT,)):
            self.multi("Dropout", [t[0]], [(t[1], t[2]), (TensorProto.BOOL, t[2])])

    def matmul(self) -> None:
        t = self.pick((TensorProto.FLOAT,), rank=(2, 3))
        if t is not None and isinstance(t[2][-1], int):
            made = self.node("MatMul", [t[0], self.weight(t[1], (t[2][-1], 3))], t[1], (*t[2][:-1], 3))
            self.node("Tanh", [made[0]], t[1], made[2])

    def conv(self) -> None:
        t = self.pick((TensorProto.FLOAT,), rank=(4, 4))
        if t is None or not isinstance(t[2][1], int) or t[2][1] > 8 or t[2][1] < 1:
            return
        channels = self.rng.choice([2, 4])
        shape = (t[2][0], channels, *t[2][2:])
        bias = [self.weight(t[1], (channels,))] if self.rng.random() < 0.5 else []
        made = self.node("Conv", [t[0], self.weight(t[1], (channels, t[2][1], 1, 1)), *bias], t[1], shape)
        if self.rng.random() < 0.7:
            scale, bias = self.weight(t[1], (channels,)), self.weight(t[1], (channels,))
            # A mean of its own sign: equal to the bias it would leave nothing but rounding in the result.
            mean, variance = (
                self.constant(np.linspace(*ends, channels, dtype=np.float32)) for ends in ((-1, -0.5), (0.5, 1))
            )
            made = self.node("BatchNormalization", [made[0], scale, bias, mean, variance], t[1], shape)
        if self.rng.random() < 0.5:
            made = self.node("Mul", [made[0], self.weight(t[1], (channels, 1, 1))], t[1], shape)
        self.node("Tanh", [made[0]], t[1], shape)

    def again(self) -> None:
        """The same computation a second time."""
        if self.nodes:
            node = onnx.NodeProto()
            node.CopyFrom(self.rng.choice(self.nodes))
            known = {t[0]: t for t in self.own}
            if node.output and all(name in known for name in node.output):
                made = [(self.fresh(), *known[name][1:]) for name in node.output]
                node.name = self.fresh("n_")
                if node.op_type == "Cast":
                    self.casts.update(m[0] for m in made)
                del node.output[:]
                node.output.extend(m[0] for m in made)
                if not any(a.HasField("g") for a in node.attribute):
                    self.nodes.append(node)
                    self.tensors += made
                    self.own += made

    def call(self) -> None:
        if t := self.pick((TensorProto.FLOAT,)):
            op = self.rng.choice(["Scale", "Outer"])
            attributes = {"alpha": self.rng.choice([0.5, 1.0])} if op == "Scale" else {}
            self.node(op, [t[0]], t[1], t[2], domain="local", **attributes)

    def body(self, result: Tensor, size: int) -> _Builder:
        """A builder whose last node makes a tensor of the type and shape of ``result``."""
        inner = _Builder(self.rng, self)
        inner.grow(size, bodies=self.outer is None)
        same = [t for t in inner.tensors if t[1:] == result[1:]]
        inner.node(self.rng.choice(["Identity", "Identity", "Neg"]), [self.rng.choice(same)[0]], result[1], result[2])
        return inner

    def graph(self, name: str, inputs: list[Tensor], outputs: list[Tensor]) -> onnx.GraphProto:
        infos = [[helper.make_tensor_value_info(*t) for t in side] for side in (inputs, outputs)]
        return helper.make_graph(self.nodes, name, *infos, initializer=self.initializers)

    def branch(self) -> None:
        condition, t = self.pick((TensorProto.BOOL,), rank=(0, 0)), self.pick(FLOATS)
        if condition is None or t is None:
            return
        if t[0] in self.casts:
            t = self.node("Identity", [t[0]], t[1], t[2])
        bodies = []
        for name in ("then_branch", "else_branch"):
            inner = self.body(t, self.rng.randint(0, 4))
            bodies.append(inner.graph(name, [], [inner.own[-1]]))
        self.node("If", [condition[0]], t[1], t[2], then_branch=bodies[0], else_branch=bodies[1])

    def loop(self) -> None:
        t = self.pick(FLOATS)
        if t is None:
            return
        inner = _Builder(self.rng, self)
        carried = (self.fresh(), t[1], t[2])
        head = [(self.fresh(), TensorProto.INT64, ()), (self.fresh(), TensorProto.BOOL, ()), carried]
        inner.tensors += head
        inner.grow(self.rng.randint(0, 4), bodies=False)
        going = inner.node("Identity", [head[1][0]], TensorProto.BOOL, ())
        new = inner.node("Tanh", [self.rng.choice([o for o in inner.tensors if o[1:] == t[1:]])[0]], t[1], t[2])
        scanned = inner.node("Neg", [carried[0]], t[1], t[2])
        body = inner.graph("body", head, [going, new, scanned])
        trips = self.constant(np.array(2, np.int64))
        self.multi("Loop", [trips, "", t[0]], [t[1:], (t[1], (2, *t[2]))], body=body)

    def grow(self, size: int, *, bodies: bool) -> None:
        plain = [self.unary, self.binary, self.binary, self.logic, self.cast, self.cast, self.transpose]
        plain += [self.reshape, self.axes, self.neutral, self.neutral, self.clip, self.split, self.dropout]
        plain += [self.matmul, self.conv, self.again, self.again, self.call]
        for _ in range(size):
            self.rng.choice([*plain, self.branch, self.branch, self.loop] if bodies else plain)()

    def model(self, size: int) -> onnx.ModelProto:
        first: Shape = self.rng.choice([("N", 3), (2, 3), ("N", 2, 3)])
        inputs: list[Tensor] = [
            ("x", TensorProto.FLOAT, first),
            ("image", TensorProto.FLOAT, (self.rng.choice(["N", 1]), 3, 2, 2)),
            ("k", self.rng.choice(STORED), (2, 3)),
            ("flag", TensorProto.BOOL, ()),
        ]
        # An initializer that is an input too: a default value that the caller may override.
        self.initializers.append(numpy_helper.from_array(np.array([1, 0, 1], np.float32), "w"))
        inputs.append(("w", TensorProto.FLOAT, (3,)))
        self.tensors += inputs
        self.grow(size, bodies=True)
        self.node("Neg", ["x"], TensorProto.FLOAT, first)
        # Mostly what nobody reads: whoever reads it would be dead, and whatever is an output resists rewriting.
        read = {name for node in self.nodes for name in node.input}
        ends = [t for t in self.own if t[0] not in read or self.rng.random() < 0.05]
        outputs = self.rng.sample(ends, self.rng.randint(1 + len(ends) // 2, len(ends)))
        return helper.make_model(
            self.graph("random", inputs, outputs),
            functions=_functions(self.opset),
            opset_imports=[helper.make_opsetid("", self.opset), helper.make_opsetid("local", 1)],
            ir_version=8 if self.opset < 21 else 10,
        )


def _functions(opset: int) -> list[onnx.FunctionProto]:
    """A function with an attribute and waste in it, one that calls it, and one that nobody calls."""
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    alpha = helper.make_node("Constant", [], ["a"])
    alpha.attribute.append(
        onnx.AttributeProto(name="value_float", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    )
    half = [helper.make_node("Constant", [], [name], value_float=0.5) for name in ("h1", "h2")]
    scale = [
        alpha,
        *half,
        helper.make_node("Mul", ["v", "a"], ["m"]),
        helper.make_node("Mul", ["m", "h1"], ["p"]),
        helper.make_node("Mul", ["m", "h2"], ["q"]),
        helper.make_node("Neg", ["q"], ["dead"]),
        helper.make_node("Identity", ["p"], ["i"]),
        helper.make_node("Add", ["i", "q"], ["r"]),
    ]
    called = helper.make_node("Scale", ["v"], ["s"], domain="local", alpha=0.25)
    outer = [called, helper.make_node("Tanh", ["s"], ["r"])]
    return [
        helper.make_function("local", "Scale", ["v"], ["r"], scale, imports, ["alpha"]),
        helper.make_function("local", "Outer", ["v"], ["r"], outer, imports),
        helper.make_function("local", "Unused", ["v"], ["r"], outer, imports),
    ]
