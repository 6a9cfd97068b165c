"""The runner ``tensorrt`` with somebody who looks at every tensor it shows, while the engine runs.

Each tensor is held against the reference's, which lies in a golden file, inside the engine's own callback, and then
forgotten: of a model with a thousand layers one tensor is in memory at a time, and a few numbers about each come back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.golden import GoldenReader
from surgeon_debug.runners.catalogue import arguments_of
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_debug.runners.tensorrt.debug_listener import Shown
from surgeon_debug.runners.tensorrt.inspector import info_from_json
from surgeon_debug.runners.tensorrt.layer_map import How, LayerMap, TensorMatch
from surgeon_debug.runners.tensorrt.runner import TensorRT
from surgeon_debug.runners.tensorrt.watch_list import Inside, read_list
from surgeon_debug.seen_tensor import Look, look_at, to_text, unmatched_look
from surgeon_debug.values import Feeds, Value, normalise
from surgeon_passes.errors import BadOptionError

SEEN = "surgeon.seen"
"""Under this name comes a text: what was seen in the run, for :func:`surgeon_debug.seen_tensor.from_text`."""

BODY = "body"
"""What :attr:`Look.how` is for tensors inside nodes with bodies."""


class _KeepsNone(TensorRT):
    """TensorRT that passes on what its engine shows and keeps none of it, also of what is wanted."""

    def _take(self, shown: Shown) -> None:
        if self.listen is not None:
            self.listen(shown)


class Watch:
    """TensorRT, watched.

    Args:
        runner: The text of the runner ``tensorrt`` with its options.
        golden: The reference's values, a golden file.
        tensors: A file of the model's tensors, see :class:`surgeon_debug.runners.tensorrt.watch_list.WatchList`.

    Raises:
        BadOptionError: The runner is another, or a file is not of that form.
    """

    observes = True

    def __init__(self, runner: str, golden: Path, tensors: Path) -> None:
        text = parse_runner(runner)[0]
        if text.file or text.name != "tensorrt":
            raise BadOptionError(f"{runner} shows no tensors while it runs", hint="only tensorrt does")
        self._inner: TensorRT = _KeepsNone(**arguments_of(_KeepsNone, text.name, text.options))
        self._inner.listen = self._look
        self._golden = GoldenReader(golden)
        self._list = read_list(tensors)
        self._run = 0
        self._seen: list[Look] = []
        self._map: LayerMap | None = None
        self._document: Any = None
        self._matches: dict[tuple[str, tuple[int, ...], str], TensorMatch] = {}

    @property
    def precision(self) -> str | None:
        """The runner's own."""
        return self._inner.precision

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Prepare the runner; the samples of the golden file are run in order, again and again."""
        self._run = 0
        self._inner.prepare(model_path, [name for name in outputs if name != SEEN])

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Run the next sample; what was seen comes with the outputs."""
        self._seen = []
        found = self._inner.run(feeds)
        self._run += 1
        return {**found, SEEN: np.array([to_text(self._seen)], dtype=object)}

    def _layer_map(self) -> LayerMap:
        """The way from the present engine's tensors to the model's."""
        document = self._inner.document
        if self._map is None or document is not self._document:
            self._document = document
            self._map = LayerMap(info_from_json(document.get("layers", ())), self._list.tensors)
            self._matches.clear()
        return self._map

    def _look(self, shown: Shown) -> None:
        """Hold a tensor against the reference's."""
        value = np.asarray(normalise(shown.value))
        layers = self._layer_map()
        lie = "its elements do not lie in order" if layers.linear(shown.name) is False else ""
        inside = self._list.inside.get(shown.name)
        if inside is not None and shown.name not in self._list.tensors:
            looks = self._inside(inside, shown, value, lie)
        else:
            looks = self._in_main_graph(layers, shown, value, lie)
        self._seen += looks

    def _told(self, look: Look, shown: Shown, how: str, choices: int) -> Look:
        """A look with what is known of when and as what the engine showed the tensor."""
        return dataclasses.replace(
            look, name=shown.name, occurrence=shown.occurrence, run=self._run, how=how, choices=choices
        )

    def _in_main_graph(self, layers: LayerMap, shown: Shown, value: np.ndarray[Any, Any], lie: str) -> list[Look]:
        key = (shown.name, value.shape, value.dtype.name)
        match = self._matches.get(key)
        if match is None:
            match = self._matches[key] = layers.tensor(*key)
        sample = self._run % self._golden.samples
        names = [name for name in match.candidates if self._golden.has(sample, name)]
        if not names:
            return [self._told(unmatched_look(shown.name, value, lie), shown, How.UNKNOWN.value, 0)]
        how, choices = match.how.value, len(names)
        looks = (look_at(name, value, self._golden.get(sample, name), lie) for name in names)
        return [self._told(look, shown, how, choices) for look in looks]

    def _inside(self, candidates: Sequence[Inside], shown: Shown, value: np.ndarray[Any, Any], lie: str) -> list[Look]:
        """A tensor of a body, held against that of the same iteration."""
        sample = self._run % self._golden.samples
        found = []
        for item in candidates:
            held = self._golden.get(sample, item.golden) if self._golden.has(sample, item.golden) else None
            if not isinstance(held, np.ndarray):
                continue
            index = item.index(shown.occurrence, held.shape, self._list.iterations)
            part = None if index is None else held[index]
            if part is not None and part.shape != value.shape and part.size == value.size and value.ndim == 0:
                part = part.reshape(())  # scalars are kept with a dimension
            if part is not None:
                found.append(look_at(item.golden, value, part, lie))
        if not found:
            return [self._told(unmatched_look(shown.name, value, lie), shown, BODY, 0)]
        return [self._told(look, shown, BODY, len(found)) for look in found]

    def close(self) -> None:
        """Close runner and file."""
        self._inner.close()
        self._golden.close()
