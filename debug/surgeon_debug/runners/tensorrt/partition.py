"""Which nodes of a model TensorRT refuses, all of them, and which parts of the model it would take.

The parser stops at the first node that it refuses. Asked on a network of its own it goes on to the end.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from surgeon_debug.runners.tensorrt.failures import BuildFailure
from surgeon_debug.runners.tensorrt.model_source import bytes_for_parser, node_titles
from surgeon_debug.runners.tensorrt.parse import ParseIssue, Part, supported_parts

_NAMED = 4  # nodes in a message
_PARTS = 3


@dataclasses.dataclass(frozen=True)
class Partition:
    """A model divided into what TensorRT takes and what it does not."""

    titles: tuple[tuple[str, str], ...]
    """Name and operator of every node of the main graph."""
    parts: tuple[Part, ...]
    """The parts, by their first nodes; empty if the parser did not divide the model."""
    issues: tuple[ParseIssue, ...]
    """All that the parser has against it."""

    @property
    def refused(self) -> tuple[str, ...]:
        """Names of the nodes of the main graph that are refused, in order; of a part that is, all of them."""
        by_part = {i for part in self.parts if not part.supported for i in part.nodes if i < len(self.titles)}
        if by_part and len(by_part) < len(self.titles):
            return tuple(self.titles[i][0] for i in sorted(by_part))
        # Where everything is refused, or nothing is said of parts, only what an error is about is known.
        known = {name for name, _ in self.titles}
        return tuple(dict.fromkeys(issue.node for issue in self.issues if not issue.functions and issue.node in known))

    @property
    def words(self) -> str:
        """What is refused and what is left, as a phrase; empty if it is not known."""
        names = self.refused
        if not names:
            return ""
        ops = dict(self.titles)
        said = ", ".join(f"{name} ({ops[name]})" for name in names[:_NAMED])
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        phrase = f"it refuses {len(names)} of {len(self.titles)} nodes, {said}{more}"
        taken = sorted((part for part in self.parts if part.supported), key=lambda part: -len(part.nodes))
        if not taken:
            return phrase
        spans = ", ".join(self._span(part) for part in sorted(taken[:_PARTS], key=lambda part: part.nodes))
        rest = f" and {len(taken) - _PARTS} smaller ones" if len(taken) > _PARTS else ""
        return f"{phrase}, and takes {spans}{rest}"

    def _span(self, part: Part) -> str:
        first, last = (self.titles[part.nodes[i]][0] for i in (0, -1))
        return first if len(part.nodes) == 1 else f"{first} to {last} ({len(part.nodes)} nodes)"

    @property
    def hint(self) -> str:
        """What to do; empty if no node is known to be refused."""
        words = self.words
        if not words:
            return ""
        them = "that node" if len(self.refused) == 1 else "those nodes"
        return f"{words}: rewrite {them}, or cut out what it takes with surgeon extract"


def partition(trt: Any, builder: Any, logger: Any, flags: int, path: Path) -> Partition:
    """Divide a model.

    Args:
        trt: The module.
        builder: A builder.
        logger: The process's logger.
        flags: Flags for the network.
        path: An ONNX file in binary form.

    Raises:
        FileError: It cannot be read.
        BadModelError: It is not ONNX.
    """
    parts, issues = supported_parts(trt, builder, logger, flags, path)
    titles = node_titles(bytes_for_parser(path) or path.read_bytes())
    return Partition(tuple(titles), tuple(parts), tuple(issues))


def explained(error: BuildFailure, found: Partition) -> BuildFailure:
    """The parser's refusal with all that is refused, and what to do about it."""
    error.nodes = found.refused
    error.hint = found.hint or error.hint
    return error
