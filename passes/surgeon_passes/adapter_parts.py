"""The parts that rewrites of nodes between operator set versions are made of: attributes become inputs, and back.

An adapter looks at a node and answers with a function that makes the rewrite, or with the reason why it cannot be made.
It changes nothing itself, so that a model is converted as a whole or not at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from surgeon_passes.constants import add_constant, constant_of, small_ints
from surgeon_passes.names import FreshNames
from surgeon_passes.walk import Scope

Rewrite = Callable[[], None]
"""Makes a rewrite that was found possible."""


@dataclasses.dataclass(frozen=True)
class Site:
    """A node and what an adapter needs to know about its surroundings."""

    node: ir.Node
    """The node."""
    scope: Scope
    """The graph it is in."""
    types: Mapping[ir.Value, ir.TypeAndShape]
    """What is known of values."""
    names: FreshNames
    """Hands out names for new values and nodes."""

    def attr(self, name: str, default: object) -> object:
        """The value of an attribute, or ``default``; references count as absent, see :meth:`has_reference`."""
        attr = self.node.attributes.get(name)
        return default if attr is None or attr.is_ref() else attr.value

    def has_reference(self) -> bool:
        """Whether an attribute of the node is only known when its function is called."""
        return any(attr.is_ref() for attr in self.node.attributes.values())

    def constant(self, array: np.ndarray, what: str) -> ir.Value:
        """A new constant, named after the node's output."""
        name = self.names.value(f"{self.node.outputs[0].name}_{what}")
        return add_constant(self.scope, ir.tensor(array), name, self.node)

    def rank(self) -> int | None:
        """The number of dimensions of the first input."""
        value = self.node.inputs[0]
        shape = self.types[value].shape if value is not None and value in self.types else None
        return None if shape is None else len(shape)

    def dtype(self) -> ir.DataType | None:
        """The element type of the first input."""
        value = self.node.inputs[0]
        kind = self.types[value].type if value is not None and value in self.types else None
        return kind.dtype if isinstance(kind, ir.TensorType) else None


Adapter = Callable[[Site], Rewrite | str]
"""Plans a rewrite: the function that makes it, or why it cannot be made."""


def set_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    """Give a node an input at a place, which may be behind its last one."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def trim(node: ir.Node) -> None:
    """Take omitted inputs off the end."""
    count = len(node.inputs)
    while count and node.inputs[count - 1] is None:
        count -= 1
    node.resize_inputs(count)


def without_references(plan: Adapter) -> Adapter:
    """The adapter, for nodes all of whose attributes are known."""

    def guarded(site: Site) -> Rewrite | str:
        if site.has_reference():
            return "an attribute is only known when its function is called"
        return plan(site)

    return guarded


def both(*adapters: Adapter) -> Adapter:
    """Several adapters, one after the other."""

    def plan(site: Site) -> Rewrite | str:
        plans = [adapter(site) for adapter in adapters]
        reasons = [made for made in plans if isinstance(made, str)]
        if reasons:
            return reasons[0]

        def rewrite() -> None:
            for made in plans:
                assert not isinstance(made, str)
                made()

        return rewrite

    return plan


def attribute_to_input(name: str, index: int) -> Adapter:
    """An integer list becomes an input; where it is absent the input is left out."""

    def plan(site: Site) -> Rewrite | str:
        def rewrite() -> None:
            values = site.attr(name, None)
            if values is not None:
                array = np.array(values, dtype=np.int64)
                del site.node.attributes[name]
                set_input(site.node, index, site.constant(array, name))

        return rewrite

    return without_references(plan)


def input_to_attribute(name: str, index: int, *, needed: bool = False) -> Adapter:
    """A constant integer input becomes an attribute."""

    def plan(site: Site) -> Rewrite | str:
        value = site.node.inputs[index] if index < len(site.node.inputs) else None
        ints = [] if value is None else small_ints(value)
        if ints is None:
            return f"'{value and value.name}' is not constant, and the older version wants it as attribute '{name}'"
        if needed and value is None:
            return f"input {index} is missing"
        if not ints and site.attr("noop_with_empty_axes", 0):
            return "no axes mean no reduction here, and all axes in the older version"

        def rewrite() -> None:
            if ints:
                site.node.attributes[name] = ir.AttrInt64s(name, ints)
            if value is not None:
                site.node.replace_input_with(index, None)
                trim(site.node)
            site.node.attributes.pop("noop_with_empty_axes", None)

        return rewrite

    return without_references(plan)


def floats_to_inputs(names: tuple[str, ...], first: int) -> Adapter:
    """Numbers of the input's type become scalar inputs."""

    def plan(site: Site) -> Rewrite | str:
        dtype = site.dtype()
        if dtype is None:
            return "the type of its input is not known"
        numpy_type = dtype.numpy()

        def rewrite() -> None:
            for i, name in enumerate(names):
                value = site.attr(name, None)
                if value is not None:
                    del site.node.attributes[name]
                    set_input(site.node, first + i, site.constant(np.array(value, numpy_type), name))

        return rewrite

    return without_references(plan)


def inputs_to_floats(names: tuple[str, ...], first: int) -> Adapter:
    """Constant scalar inputs become numbers."""

    def plan(site: Site) -> Rewrite | str:
        found: dict[str, float] = {}
        for i, name in enumerate(names, first):
            value = site.node.inputs[i] if i < len(site.node.inputs) else None
            if value is None:
                continue
            tensor = constant_of(value)
            if tensor is None or tensor.size != 1:
                return f"'{value.name}' is not constant, and the older version wants it as attribute '{name}'"
            found[name] = float(tensor.numpy().reshape(-1)[0])

        def rewrite() -> None:
            for name, number in found.items():
                site.node.attributes[name] = ir.AttrFloat32(name, number)
            for i in range(first, min(first + len(names), len(site.node.inputs))):
                site.node.replace_input_with(i, None)
            trim(site.node)

        return rewrite

    return without_references(plan)


def scalar_to_input(name: str, index: int, default: int | None, shape: tuple[int, ...]) -> Adapter:
    """An integer becomes an input."""

    def plan(site: Site) -> Rewrite | str:
        def rewrite() -> None:
            value = site.attr(name, default)
            site.node.attributes.pop(name, None)
            set_input(site.node, index, site.constant(np.full(shape, value, np.int64), name))

        return rewrite

    return without_references(plan)


def input_to_scalar(name: str, index: int) -> Adapter:
    """A constant integer input becomes a single number."""

    def plan(site: Site) -> Rewrite | str:
        value = site.node.inputs[index] if index < len(site.node.inputs) else None
        ints = small_ints(value)
        if value is None or ints is None or len(ints) != 1:
            return f"input {index} is not constant, and the older version wants it as attribute '{name}'"
        number = ints[0]

        def rewrite() -> None:
            site.node.attributes[name] = ir.AttrInt64(name, number)
            site.node.replace_input_with(index, None)
            trim(site.node)

        return rewrite

    return without_references(plan)
