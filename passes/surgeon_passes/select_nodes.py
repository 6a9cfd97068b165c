"""Find nodes and tensors by what a person typed: names, shell patterns, regular expressions; suggest near misses."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

import onnx_ir as ir

from surgeon_passes.errors import BadOptionError
from surgeon_passes.near_names import did_you_mean
from surgeon_passes.walk import title


class NamePattern:
    """One pattern: a name as it is, else with ``*``, ``?`` and ``[...]``, else ``re:`` and a regular expression.

    Raises:
        BadOptionError: The regular expression is not valid.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if text.startswith("re:"):
            try:
                self._expression = re.compile(text[3:])
            except re.error as error:
                raise BadOptionError(f"'{text}' is not a regular expression: {error}") from error
        else:
            self._expression = re.compile(fnmatch.translate(text))
        self._is_regex = text.startswith("re:")

    def matches(self, name: str) -> bool:
        """Whether ``name`` is meant; a regular expression may match any part of it, a shell pattern all of it."""
        if self._is_regex:
            return self._expression.search(name) is not None
        return name == self.text or self._expression.match(name) is not None


def matching(patterns: Sequence[str], names: Sequence[str], what: str) -> list[int]:
    """The places in ``names`` that any pattern matches, in order.

    A pattern that equals a name means that name alone: names may hold brackets and stars.

    Args:
        patterns: What was asked for.
        names: All names there are.
        what: What the names are, for messages: ``node``, ``tensor``.

    Raises:
        BadOptionError: A pattern matches nothing; the hint offers close names.
    """
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    found: set[int] = set()
    for text in patterns:
        if text in places:
            found.update(places[text])
            continue
        pattern = NamePattern(text)
        hits = [i for name, where in places.items() if name and pattern.matches(name) for i in where]
        if not hits:
            raise BadOptionError(f"no {what} matches '{text}'", hint=did_you_mean(text, places))
        found.update(hits)
    return sorted(found)


def select_nodes(nodes: Iterable[ir.Node], patterns: Sequence[str]) -> list[ir.Node]:
    """The nodes whose label any pattern matches, in their order.

    Raises:
        BadOptionError: A pattern matches no node.
    """
    every = list(nodes)
    return [every[i] for i in matching(patterns, [title(node) for node in every], "node")]
