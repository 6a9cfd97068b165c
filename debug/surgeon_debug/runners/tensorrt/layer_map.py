"""From an engine's layers and tensors back to the nodes and tensors of the model, as far as that can be said.

The engine's metadata name the nodes that a layer computes. What the engine put in itself (reformats, casts) belongs to
whoever makes or reads its tensors. Where several answers remain, all of them are given: nobody guesses.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from surgeon_debug.runners.tensorrt.inspector import EngineInfo, EngineLayer

_INSERTED = re.compile(r"Reformatting CopyNode ")
_PROFILE = re.compile(r" \[profile \d+\]$")
_ENDINGS = (re.compile(r"_myl\d+(?:_\d+)*$"), re.compile(r"(?:\.\d+(?:_\d+)*)?_myl\d+(?:_\d+)*$"), re.compile(r"'$"))


class How(enum.Enum):
    """How a layer or a tensor was found in the model."""

    METADATA = "metadata"
    """The engine says so."""
    NAME = "name"
    """Its name is, or holds, that of the model."""
    PRODUCER = "producer"
    """It handles what these nodes make."""
    CONSUMER = "consumer"
    """It prepares what these nodes read."""
    GROUP = "group"
    """It leaves a layer that computes these nodes, and has the same shape and type."""
    UNKNOWN = "unknown"
    """It could not be found."""


@dataclasses.dataclass(frozen=True)
class LayerNodes:
    """A layer and its nodes."""

    layer: EngineLayer
    """The layer."""
    nodes: tuple[str, ...]
    """Names of the model's nodes; empty if none could be found."""
    how: How
    """How they were found; those of an inserted layer only border on it."""


@dataclasses.dataclass(frozen=True)
class ModelTensor:
    """What is known of a tensor of the model."""

    node: str
    """The node that computes it."""
    shape: tuple[int, ...] | None = None
    """Its sizes, if they are known."""
    kind: str = ""
    """Its type as numpy calls it, if it is known."""
    readers: tuple[str, ...] | None = None
    """The nodes that read it, an empty name for whoever reads the model's outputs; None if they are not known."""


@dataclasses.dataclass(frozen=True)
class TensorMatch:
    """Which tensors of the model a tensor of the engine may be."""

    candidates: tuple[str, ...]
    """Names in the model; several if that cannot be said for sure, none if it is none of the model's."""
    how: How
    """How they were found."""

    @property
    def ambiguous(self) -> bool:
        """Whether there are several."""
        return len(self.candidates) > 1


def model_name(name: str, known: Collection[str]) -> str:
    """The name in the model of a tensor of the engine, if it is the same but for what the engine hangs on to it.

    Args:
        name: Its name in the engine.
        known: Names of the model's tensors.

    Returns:
        The name in the model; empty if there is none.
    """
    plain = _PROFILE.sub("", name)
    for candidate in (name, plain, *(ending.sub("", plain) for ending in _ENDINGS)):
        if candidate in known:
            return candidate
    return ""


class LayerMap:
    """The way from an engine to its model.

    Args:
        info: What the engine says of itself.
        tensors: The model's tensors, by name.
    """

    def __init__(self, info: EngineInfo, tensors: Mapping[str, ModelTensor]) -> None:
        self._tensors = dict(tensors)
        self._order = {name: i for i, name in enumerate(self._tensors)}
        self._by_node: dict[str, list[str]] = {}
        for name, tensor in self._tensors.items():
            self._by_node.setdefault(tensor.node, []).append(name)
        self._counts: dict[str, int] = {}
        self._writers: dict[str, EngineLayer] = {t.name: layer for layer in info.layers for t in layer.outputs}
        self._written = {tensor.name: tensor for layer in info.layers for tensor in layer.outputs}
        self._readers: dict[str, list[EngineLayer]] = {}
        for layer in info.layers:
            for read in layer.inputs:
                self._readers.setdefault(read.name, []).append(layer)
        self.layers = tuple(self._nodes(layer) for layer in info.layers)
        """Every layer with its nodes, in the engine's order."""
        self._of = {item.layer.name: item for item in self.layers}

    def _nodes(self, layer: EngineLayer) -> LayerNodes:
        known = self._known(layer)
        if known is not None:
            return known
        makers = [self._writers[tensor.name] for tensor in layer.inputs if tensor.name in self._writers]
        if nodes := self._all(makers):
            return LayerNodes(layer, nodes, How.PRODUCER)
        readers = [reader for tensor in layer.outputs for reader in self._readers.get(tensor.name, ())]
        nodes = self._all(readers)
        return LayerNodes(layer, nodes, How.CONSUMER if nodes else How.UNKNOWN)

    def _known(self, layer: EngineLayer) -> LayerNodes | None:
        if layer.nodes:
            return LayerNodes(layer, layer.nodes, How.METADATA)
        if _INSERTED.match(layer.name) or layer.kind == "Reformat":
            return None  # it is called after layers that it stands beside
        parts = [part.strip() for part in _PROFILE.sub("", layer.name).split(" + ")]
        named = tuple(part for part in parts if part in self._by_node)
        return LayerNodes(layer, named, How.NAME) if named else None

    def _all(self, layers: Iterable[EngineLayer]) -> tuple[str, ...]:
        found = [known.nodes for layer in layers if (known := self._known(layer)) is not None]
        return tuple(dict.fromkeys(node for nodes in found for node in nodes))

    def nodes_of(self, layer: str) -> LayerNodes | None:
        """A layer with its nodes, by its name; None if there is none of that name."""
        return self._of.get(layer)

    def layers_of(self, node: str) -> list[LayerNodes]:
        """The layers that compute a node; several if it was split."""
        return [item for item in self.layers if item.how in (How.METADATA, How.NAME) and node in item.nodes]

    def writer(self, name: str) -> LayerNodes | None:
        """The layer that writes a tensor of the engine; None if that is not said."""
        found = self._writers.get(name) or self._writers.get(_PROFILE.sub("", name))
        return None if found is None else self._of[found.name]

    def linear(self, name: str) -> bool | None:
        """Whether the elements of a tensor of the engine lie in order; None if that is not said."""
        written = self._written.get(name)
        return None if written is None else written.linear

    def tensor(self, name: str, shape: tuple[int, ...] | None = None, kind: str = "") -> TensorMatch:
        """Find a tensor of the engine in the model.

        Args:
            name: Its name in the engine.
            shape: Its sizes, if they are known.
            kind: Its type as numpy calls it, if it is known.
        """
        known = model_name(name, self._tensors)
        if known == name or (known and self._fits(known, shape, kind)):
            return TensorMatch((known,), How.NAME)
        writer = self._writers.get(name) or self._writers.get(_PROFILE.sub("", name))
        if writer is None:
            return TensorMatch((), How.UNKNOWN)
        nodes = set(self._of[writer.name].nodes)
        border = [tensor for node in nodes for tensor in self._by_node.get(node, ()) if self._leaves(tensor, writer)]
        border = [tensor for tensor in border if self._read_outside(tensor, writer)] or border
        fitting = [tensor for tensor in border if self._fits(tensor, shape, kind)]
        found = tuple(sorted(fitting, key=self._order.__getitem__))
        return TensorMatch(found, How.GROUP if found else How.UNKNOWN)

    def _leaves(self, tensor: str, writer: EngineLayer) -> bool:
        """Whether a tensor may leave a layer: it writes one of that name, or none of its names is the model's."""
        written = {output.name for output in writer.outputs}
        return tensor in written or written.isdisjoint(self._tensors)

    def _read_outside(self, tensor: str, writer: EngineLayer) -> bool:
        """Whether a layer other than its own may read a tensor."""
        readers = self._tensors[tensor].readers
        own = self._of[writer.name].nodes
        return readers is None or any(node not in own or self._computed_by(node) > 1 for node in readers)

    def _computed_by(self, node: str) -> int:
        """How many layers compute a node."""
        if not self._counts:
            for item in self.layers:
                if item.how in (How.METADATA, How.NAME):
                    for name in dict.fromkeys(item.nodes):
                        self._counts[name] = self._counts.get(name, 0) + 1
        return self._counts.get(node, 0)

    def _fits(self, tensor: str, shape: tuple[int, ...] | None, kind: str) -> bool:
        known = self._tensors[tensor]
        if shape is not None and known.shape is not None and known.shape != shape:
            return False
        return not kind or not known.kind or known.kind == kind


def grouping(layers: Sequence[LayerNodes]) -> dict[frozenset[str], tuple[str, ...]]:
    """Which nodes are computed together: layers by their set of nodes, inserted layers left out."""
    found: dict[frozenset[str], tuple[str, ...]] = {}
    for item in layers:
        if item.how in (How.METADATA, How.NAME):
            key = frozenset(item.nodes)
            found[key] = (*found.get(key, ()), item.layer.name)
    return found
