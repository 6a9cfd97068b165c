"""Show tensors inside a model as outputs, without decoding the model.

Two serialised protobuf messages, one after the other, parse as their merge: repeated fields are appended, the last
scalar wins. So a model with more outputs, or a lower IR version, is the model's own bytes and a short tail; its
weights are neither parsed nor copied more than the engine does anyway.
"""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Sequence
from pathlib import Path

import onnx

from surgeon_passes.graph import load


@dataclasses.dataclass(frozen=True)
class Interface:
    """The names a model shows and could show."""

    inputs: tuple[str, ...]
    """Graph inputs that have no default."""
    outputs: tuple[str, ...]
    """Graph outputs."""
    inner: frozenset[str]
    """Tensors computed in the main graph, graph outputs included."""
    ir_version: int
    """The model's IR version."""

    def hidden(self, wanted: Sequence[str]) -> list[str]:
        """Those of ``wanted`` that exist in the main graph and are not outputs yet, in the order given."""
        shown = set(self.outputs)
        return [name for name in dict.fromkeys(wanted) if name in self.inner and name not in shown]


def interface_of(model_path: Path) -> Interface:
    """Read the names of a model without its weights.

    Args:
        model_path: An ONNX file. Where its weights are is the engine's business: it is not checked here.
    """
    model = load(model_path, allow_external=True, check_weights=False)
    graph = model.graph
    inner = frozenset(value.name for node in graph for value in node.outputs if value.name)
    inputs = tuple(v.name for v in graph.inputs if v.name and not v.is_initializer())
    return Interface(inputs, tuple(v.name for v in graph.outputs if v.name), inner, model.ir_version or 0)


class InterfaceMemory:
    """Remembers the interface of the model seen last, as long as its file stays the same."""

    def __init__(self) -> None:
        self._seen: tuple[Path, int, int] | None = None
        self._interface: Interface | None = None

    def of(self, model_path: Path) -> Interface:
        """The interface of a model; see :func:`interface_of`."""
        state = model_path.stat() if model_path.exists() else None
        now = None if state is None else (model_path.resolve(), state.st_mtime_ns, state.st_size)
        if self._interface is None or now is None or now != self._seen:
            self._interface, self._seen = interface_of(model_path), now
        return self._interface


def tail_of(outputs: Sequence[str], *, ir_version: int | None = None) -> bytes:
    """The bytes that, behind a serialised model, add outputs and set the IR version.

    The outputs have names and no types: engines infer them.

    Args:
        outputs: Tensors of the main graph that are not outputs yet.
        ir_version: The IR version to state instead of the model's; None to leave it.
    """
    tail = onnx.ModelProto()
    if ir_version is not None:
        tail.ir_version = ir_version
    tail.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    data: bytes = tail.SerializeToString()
    return data


def with_tail(model_path: Path, tail: bytes) -> bytes:
    """A model's bytes with a tail, in one copy."""
    with model_path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        joined: bytes = b"".join((view, tail))
        return joined
