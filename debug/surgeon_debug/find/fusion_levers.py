"""What breaks fusions: knobs of the compiler, and tensors that are made outputs; as elements of a search."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import onnx_ir as ir

from surgeon_debug.find.engine_builds import BuildRecord, EngineLayer, Knob, Wish


@dataclasses.dataclass(frozen=True)
class Flip:
    """A knob set to another value than its default."""

    knob: str
    value: str

    @property
    def text(self) -> str:
        """As a route has it."""
        return f"{self.knob}={self.value}"


@dataclasses.dataclass(frozen=True)
class Routed:
    """Elements are flips; of two of one knob the later counts."""

    flips: tuple[Flip, ...]
    cache: str = ""
    """A timing cache, so that what is not touched keeps its tactics."""
    digest: str = ""
    """What stands for the cache among the facts."""
    keeps: bool = True

    def wish(self, elements: frozenset[int]) -> Wish:
        """Build by a route of these flips."""
        chosen = {self.flips[element].knob: self.flips[element] for element in sorted(elements)}
        route = ";".join(flip.text for flip in chosen.values())
        return Wish((("editable", "true"), *((("route", route),) if route else ())), self.cache)

    def objection(self, wish: Wish, record: BuildRecord) -> tuple[str, tuple[str, ...]]:  # noqa: ARG002
        """None: the runner itself refuses a route that was not taken."""
        return "", ()

    def facts(self) -> str:
        """What builds depend on."""
        return f"route {json.dumps([[f.knob, f.value] for f in self.flips])} {self.digest}"


@dataclasses.dataclass(frozen=True)
class Marked:
    """Elements are tensors that are made outputs, which keeps what computes them apart from what reads them."""

    tensors: tuple[str, ...]
    cache: str = ""
    """A timing cache, so that what is not touched keeps its tactics."""
    digest: str = ""
    """What stands for the cache among the facts."""
    keeps: bool = True

    def wish(self, elements: frozenset[int]) -> Wish:
        """Build with these tensors as outputs."""
        shown = tuple(self.tensors[element] for element in sorted(elements))
        return Wish((("editable", "true"), ("observe", "output")), self.cache, shown=shown)

    def objection(self, wish: Wish, record: BuildRecord) -> tuple[str, tuple[str, ...]]:  # noqa: ARG002
        """None: whatever is built so is what was wished for."""
        return "", ()

    def facts(self) -> str:
        """What builds depend on."""
        return f"marked {json.dumps(list(self.tensors))} {self.digest}"


def flips_of(knobs: Sequence[Knob]) -> tuple[list[Flip], list[Flip]]:
    """Flips of knobs that are on or off, which may be made all at once; and those of knobs with more values."""
    single = [Flip(knob.name, knob.others[0]) for knob in knobs if len(knob.others) == 1]
    several = [Flip(knob.name, value) for knob in knobs if len(knob.others) > 1 for value in knob.others]
    return single, several


@dataclasses.dataclass(frozen=True)
class Joint:
    """A tensor inside a fused layer: made an output, it takes the layer apart."""

    tensor: str
    layer: EngineLayer


def joints_of(model: ir.Model, layers: Sequence[EngineLayer]) -> list[Joint]:
    """Tensors that are written and read inside one layer, in the model's order.

    Where the engine says nothing of its layers, every inner tensor that something reads may be one.

    Args:
        model: The model.
        layers: Its layers in the engine.
    """
    homes = {node: layer for layer in layers if len(layer.nodes) > 1 for node in layer.nodes}
    outputs = {value.name for value in model.graph.outputs}
    unknown = not any(layer.nodes for layer in layers)
    found = []
    for node in model.graph:
        home = homes.get(node.name or "")
        for value in node.outputs:
            if not value.name or value.name in outputs or not value.uses():
                continue
            inside = home is not None and any(use.node.name in home.nodes for use in value.uses())
            if unknown:
                found.append(Joint(value.name, EngineLayer("", "", (node.name or "",))))
            elif inside and home is not None:
                found.append(Joint(value.name, home))
    return found


@dataclasses.dataclass(frozen=True)
class Regrouped:
    """A layer that is computed otherwise in another build."""

    layer: str
    nodes: tuple[str, ...]
    """What was computed together."""
    parts: tuple[tuple[str, ...], ...]
    """How these nodes are grouped in the other build."""


def regrouped(before: Sequence[EngineLayer], after: Sequence[EngineLayer]) -> list[Regrouped]:
    """Fused layers of one build that the other has not.

    Args:
        before: Layers of the build that fails.
        after: Layers of the one that is right.
    """
    kept = {frozenset(layer.nodes) for layer in after}
    found = []
    for layer in before:
        nodes = frozenset(layer.nodes)
        if len(nodes) < 2 or nodes in kept:
            continue
        parts = tuple(other.nodes for other in after if nodes & set(other.nodes))
        found.append(Regrouped(layer.name, layer.nodes, parts))
    return found
