"""A model as the parser wants it: every node and every tensor that matters has a name, every output a type.

The parser makes up names for nodes that have none and changes those that occur twice, and all mapping of what an
engine does back to the model rests on names. It also refuses outputs whose element type is not said, which other
engines infer; and of an output that is an input it renames the input, so such outputs are kept from it.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surgeon_passes.errors import BadModelError, EngineError, FileError
from surgeon_passes.wire import fields

_GRAPH = 7  # of a model
_NODE, _INPUT, _OUTPUT, _KNOWN = 1, 11, 12, 13  # of a graph
_TENSOR_TYPE, _ELEMENT, _DOUBLE = 1, 1, 11
_NODE_NAME, _NODE_OP = 3, 4
_VALUE_NAME, _VALUE_TYPE = 1, 2
_LENGTH_DELIMITED = 2


def bytes_for_parser(path: Path) -> bytes | None:
    """The model with names and types filled in; None if the file will do as it is.

    Where ``onnx`` is not installed the file has to do.

    Args:
        path: An ONNX file in binary form; weights outside of it stay where they are.

    Raises:
        FileError: It cannot be read.
        BadModelError: It is not ONNX.
        EngineError: All of its outputs are inputs.
    """
    passed = passed_through(path)
    if not passed and _fit(path):
        return None
    try:
        import onnx
    except ImportError:
        return None
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise BadModelError(f"is not ONNX: {error}", where=str(path)) from error
    _name_nodes(model.graph)
    _type_outputs(model)
    kept = [value for value in model.graph.output if value.name not in passed]
    if passed and not kept:
        raise EngineError(f"tensorrt has nothing to compute in {path.name}: every output of it is an input")
    del model.graph.output[:]
    model.graph.output.extend(kept)
    try:
        return bytes(model.SerializeToString())
    except ValueError as error:
        raise EngineError(
            f"tensorrt's parser cannot be given {path.name}, which lacks names and is beyond 2 GB",
            hint="run the pass name-everything, and save with --weights external",
        ) from error


def _fit(path: Path) -> bool:
    """Whether every node of the main graph has a name of its own and every output a type."""
    with _mapped(path) as data:
        names = [name for kind, name in _entries(data) if kind == _NODE]
        typed = all(typed for kind, typed in _entries(data) if kind == _OUTPUT)
    return typed and all(names) and len(set(names)) == len(names)


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """The bytes of a file.

    Raises:
        FileError: It cannot be read.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held,
            memoryview(held) as data,
        ):
            yield data
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(f"cannot be read: {words}", where=str(path)) from error


def _entries(data: memoryview) -> Iterator[tuple[int, bytes]]:
    """Nodes with their names, outputs with the bytes of their types."""
    wanted = {_NODE: _NODE_NAME, _OUTPUT: _VALUE_TYPE}
    for number, wire, _, start, end in fields(data, 0, len(data)):
        if number != _GRAPH or wire != _LENGTH_DELIMITED:
            continue
        for kind, wire_, _, content, stop in fields(data, start, end):
            if kind in wanted and wire_ == _LENGTH_DELIMITED:
                found = b""
                for inner, _, _, a, b in fields(data, content, stop):
                    if inner == wanted[kind]:
                        found = bytes(data[a:b])
                yield kind, found


def passed_through(path: Path) -> frozenset[str]:
    """Outputs of a model that are inputs of it, too.

    Args:
        path: An ONNX file in binary form.

    Raises:
        FileError: It cannot be read.
    """
    names: dict[int, set[str]] = {_INPUT: set(), _OUTPUT: set()}
    with _mapped(path) as data:
        for number, wire, _, start, end in fields(data, 0, len(data)):
            if number != _GRAPH or wire != _LENGTH_DELIMITED:
                continue
            for kind, wire_, _, content, stop in fields(data, start, end):
                if kind in names and wire_ == _LENGTH_DELIMITED:
                    names[kind].add(_name_and_type(data, content, stop)[0])
    return frozenset(names[_INPUT] & names[_OUTPUT])


def double_tensors(path: Path) -> frozenset[str]:
    """Outputs of a model, and inner tensors as far as the file says their types, that are float64.

    Args:
        path: An ONNX file in binary form.

    Raises:
        FileError: It cannot be read.
    """
    found = set()
    with _mapped(path) as data:
        for number, wire, _, start, end in fields(data, 0, len(data)):
            if number != _GRAPH or wire != _LENGTH_DELIMITED:
                continue
            for kind, wire_, _, content, stop in fields(data, start, end):
                if kind in (_OUTPUT, _KNOWN) and wire_ == _LENGTH_DELIMITED:
                    name, element = _name_and_type(data, content, stop)
                    if element == _DOUBLE:
                        found.add(name)
    return frozenset(found)


def _name_and_type(data: memoryview, start: int, end: int) -> tuple[str, int]:
    """A value's name and the number of its element type; 0 if it is not said, or no tensor."""
    name, element = "", 0
    for number, wire, _, content, stop in fields(data, start, end):
        if number == _VALUE_NAME:
            name = bytes(data[content:stop]).decode("utf-8", "replace")
        elif number == _VALUE_TYPE and wire == _LENGTH_DELIMITED:
            for inner, wire_, _, a, b in fields(data, content, stop):
                if inner == _TENSOR_TYPE and wire_ == _LENGTH_DELIMITED:
                    # All of these numbers take one byte.
                    element = next((data[at] for field, _, _, at, _ in fields(data, a, b) if field == _ELEMENT), 0)
    return name, element


def node_titles(content: bytes) -> list[tuple[str, str]]:
    """Name and operator of every node of a model's main graph, in the order of the file.

    Args:
        content: The model in binary form.
    """
    found = []
    with memoryview(content) as data:
        for number, wire, _, start, end in fields(data, 0, len(data)):
            if number != _GRAPH or wire != _LENGTH_DELIMITED:
                continue
            for kind, wire_, _, begin, stop in fields(data, start, end):
                if kind != _NODE or wire_ != _LENGTH_DELIMITED:
                    continue
                texts = {_NODE_NAME: "", _NODE_OP: ""}
                for inner, _, _, a, b in fields(data, begin, stop):
                    if inner in texts:
                        texts[inner] = bytes(data[a:b]).decode("utf-8", "replace")
                found.append((texts[_NODE_NAME], texts[_NODE_OP]))
    return found


def _name_nodes(graph: Any) -> None:
    taken = {node.name for node in graph.node if node.name}
    seen: set[str] = set()
    for node in graph.node:
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        # The way messages call a node without a name, so that the way back is short.
        base = node.name or f"{node.op_type}({next((name for name in node.output if name), '')})"
        name, count = base, 0
        while name in seen or (count and name in taken):
            count += 1
            name = f"{base}_{count}"
        node.name = name
        seen.add(name)


def _type_outputs(model: Any) -> None:
    """Infer the types of outputs that say none; an output of an unknown operator stays without."""
    import onnx

    lacking = [value for value in model.graph.output if not value.type.WhichOneof("value")]
    if not lacking:
        return
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:  # noqa: BLE001  (what cannot be inferred the parser will say)
        return
    known = {value.name: value.type for value in inferred.graph.output}
    for value in lacking:
        if value.name in known:
            value.type.CopyFrom(known[value.name])
