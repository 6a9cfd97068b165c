"""From an ONNX file to a network, with errors that say which node, why, and inside which functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.runners.tensorrt.build_log import LogSink
from surgeon_debug.runners.tensorrt.failures import BuildFailure, BuildStatus
from surgeon_debug.runners.tensorrt.model_source import bytes_for_parser


@dataclasses.dataclass(frozen=True)
class ParseIssue:
    """One error of the parser."""

    code: str
    """The error code's name, such as ``UNSUPPORTED_NODE_ATTR``."""
    words: str
    """What the parser says."""
    node: str
    """The node's name; empty if the error is about no node."""
    op: str
    """Its operator; likewise."""
    index: int
    """Its position in the graph or function that was being parsed; -1 if none."""
    functions: tuple[str, ...]
    """Names of the local functions it is in, from the top down; empty for a node of the main graph."""
    place: str
    """Where in the parser's source: file, line and function."""

    @property
    def sentence(self) -> str:
        """All of it as the end of a sentence."""
        node = f"node {self.node or self.index} ({self.op}) " if self.op else f"'{self.node}' " if self.node else ""
        inside = f"in function {' > '.join(self.functions)} " if self.functions else ""
        words = " ".join(self.words.split()).strip(" .")
        return f"{node}{inside}is refused with {self.code}: {words}" if node else f"{self.code}: {words}"


@dataclasses.dataclass(frozen=True)
class Part:
    """Nodes of the main graph that the parser takes together, or does not."""

    nodes: tuple[int, ...]
    """Their positions in the main graph."""
    supported: bool
    """Whether TensorRT can run them."""


def parse_model(parser: Any, path: Path, sink: LogSink) -> None:
    """Fill a parser's network from a model.

    Args:
        parser: A parser around an empty network.
        path: An ONNX file in binary form.
        sink: What the logger said.

    Raises:
        BuildFailure: The parser refused the model.
    """
    parser.clear_errors()
    content = bytes_for_parser(path)
    # With the content, the path only says where weights outside the model are.
    done = parser.parse_from_file(str(path)) if content is None else parser.parse(content, str(path))
    if done:
        return
    found = issues_of(parser)
    if not found:
        words = " / ".join(sink.complaints(worst=1)[:2]) or "the parser said no and gave no reason"
        raise BuildFailure(BuildStatus.PARSE_ERROR, words, model=path.name)
    first = found[0]
    nodes = [first.node] if first.node and first.op and not first.functions else []
    raise BuildFailure(BuildStatus.PARSE_ERROR, first.sentence, model=path.name, hint=_hint(first), nodes=nodes)


def _hint(issue: ParseIssue) -> str:
    if "opset" in issue.words.lower():
        return "convert it with surgeon rewrite -p convert-opset:to=N"
    return "rewrite that node, or cut it out with surgeon extract" if issue.op else ""


def issues_of(parser: Any) -> list[ParseIssue]:
    """The parser's errors in order."""
    return [_issue(parser.get_error(i)) for i in range(parser.num_errors)]


def _issue(error: Any) -> ParseIssue:
    # All of these are methods.
    code = error.code()
    functions = tuple(str(name) for name in error.local_function_stack())
    place = f"{error.file()}:{error.line()} {error.func()}"
    return ParseIssue(
        str(getattr(code, "name", code)),
        str(error.desc()),
        str(error.node_name() or ""),
        str(error.node_operator() or ""),
        int(error.node()),
        functions,
        place,
    )


def supported_parts(trt: Any, builder: Any, logger: Any, flags: int, path: Path) -> tuple[list[Part], list[ParseIssue]]:
    """Which nodes of a model TensorRT takes, as the parser divides them, and all that it has against the others.

    It is asked on a network of its own: the question fills the network.

    Args:
        trt: The module.
        builder: A builder.
        logger: The process's logger.
        flags: Flags for the network.
        path: An ONNX file in binary form.
    """
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    content = bytes_for_parser(path) or path.read_bytes()
    whole = bool(parser.supports_model_v2(content, str(path)))
    count = parser.num_subgraphs
    parts = [Part(_positions(parser, i), whole or bool(parser.is_subgraph_supported(i))) for i in range(count)]
    return sorted(parts, key=lambda part: part.nodes), issues_of(parser)


def _positions(parser: Any, index: int) -> tuple[int, ...]:
    nodes: Sequence[Any] = parser.get_subgraph_nodes(index)
    return tuple(int(node) for node in nodes)
