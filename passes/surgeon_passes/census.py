"""Count what is in a model: inputs, outputs, operators, types, bytes, opsets, nested graphs. Weights are not read."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch

import onnx_ir as ir

from surgeon_passes.constants import nbytes_of
from surgeon_passes.graph import tensors_of
from surgeon_passes.walk import scopes


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Name and type of an input, an output or a weight."""

    name: str
    """Its name."""
    dtype: str
    """Element type, or the whole type if it is no tensor; ``?`` if unknown."""
    shape: str
    """Dimensions such as ``batch x 128``; ``scalar``; ``?`` if unknown."""
    nbytes: int
    """Bytes of data for a weight, else 0."""


@dataclasses.dataclass(frozen=True)
class NodeInfo:
    """One node, as listed for people."""

    name: str
    """Its name."""
    op: str
    """Operator, with its domain if that is not ONNX's own."""
    where: str
    """The graph it is in; empty for the main graph."""
    inputs: tuple[str, ...]
    """Names of the tensors it reads; empty for one left out."""
    outputs: tuple[str, ...]
    """Names of the tensors it makes."""


@dataclasses.dataclass(frozen=True)
class Census:
    """What is in a model."""

    ir_version: int
    """Version of the file format."""
    producer: str
    """Who made it, with version."""
    opsets: dict[str, int]
    """Opset version by domain; the default domain is ``ai.onnx``."""
    inputs: tuple[TensorInfo, ...]
    """Inputs that a caller must give."""
    defaults: tuple[TensorInfo, ...]
    """Inputs with a default (initializers of the same name)."""
    outputs: tuple[TensorInfo, ...]
    """Outputs."""
    nodes: int
    """Nodes in all graphs."""
    nested_nodes: int
    """Of these, nodes in bodies of If, Loop and Scan and in local functions."""
    graphs: tuple[str, ...]
    """Paths of all graphs but the main one."""
    functions: tuple[str, ...]
    """Local functions, as ``domain::name``."""
    ops: dict[str, int]
    """Nodes by operator, most frequent first."""
    weights: int
    """Number of weights: initializers and tensors in attributes."""
    weight_bytes: dict[str, int]
    """Bytes of weights by element type, largest first."""
    external_files: dict[str, int]
    """Bytes used of each external data file, by the location the model states."""
    largest: tuple[TensorInfo, ...]
    """The largest weights, at most ten."""
    metadata: dict[str, str]
    """The model's metadata."""


def _dims(shape: ir.Shape | None) -> str:
    if shape is None:
        return "?"
    return " x ".join(str(d) if isinstance(d, int) else (d.value or "?") for d in shape.dims) or "scalar"


def _info(value: ir.Value) -> TensorInfo:
    kind = value.type
    dtype = "?" if kind is None else kind.dtype.name.lower() if isinstance(kind, ir.TensorType) else str(kind)
    return TensorInfo(value.name or "", dtype, _dims(value.shape), 0)


def op_name(node: ir.Node) -> str:
    """The operator with its domain, unless the domain is ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def census_of(model: ir.Model) -> Census:
    """Count what is in ``model``."""
    ops: collections.Counter[str] = collections.Counter()
    graphs, nested = [], 0
    for scope in scopes(model):
        ops.update(op_name(node) for node in scope.graph)
        if scope.path:
            graphs.append(scope.path)
            nested += len(scope.graph)
    by_type: collections.Counter[str] = collections.Counter()
    files: collections.Counter[str] = collections.Counter()
    weights = list(tensors_of(model))
    for tensor in weights:
        by_type[tensor.dtype.name.lower()] += nbytes_of(tensor)
        if isinstance(tensor, ir.ExternalTensor):
            files[str(tensor.location)] += nbytes_of(tensor)
    largest = sorted(weights, key=nbytes_of, reverse=True)[:10]
    defaults = set(model.graph.initializers)
    return Census(
        ir_version=model.ir_version,
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        opsets={domain or "ai.onnx": version for domain, version in model.opset_imports.items()},
        inputs=tuple(_info(v) for v in model.graph.inputs if v.name not in defaults),
        defaults=tuple(_info(v) for v in model.graph.inputs if v.name in defaults),
        outputs=tuple(_info(v) for v in model.graph.outputs),
        nodes=sum(ops.values()),
        nested_nodes=nested,
        graphs=tuple(graphs),
        functions=tuple(f"{f.domain}::{f.name}" for f in model.functions.values()),
        ops=dict(ops.most_common()),
        weights=len(weights),
        weight_bytes=dict(by_type.most_common()),
        external_files=dict(files.most_common()),
        largest=tuple(
            TensorInfo(t.name or "", t.dtype.name.lower(), _dims(ir.Shape(t.shape.numpy())), nbytes_of(t))
            for t in largest
        ),
        metadata=dict(model.metadata_props),
    )


def nodes_matching(model: ir.Model, pattern: str) -> list[NodeInfo]:
    """The nodes whose name, or whose path and name, matches a shell pattern, in order."""
    return [
        NodeInfo(
            node.name or "",
            op_name(node),
            scope.path,
            tuple(v.name or "" if v is not None else "" for v in node.inputs),
            tuple(v.name or "" for v in node.outputs),
        )
        for scope in scopes(model)
        for node in scope.graph
        if fnmatch.fnmatchcase(node.name or "", pattern) or fnmatch.fnmatchcase(scope.label(node), pattern)
    ]
