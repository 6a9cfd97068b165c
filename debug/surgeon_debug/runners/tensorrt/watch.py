"""The runner ``tensorrt`` with somebody who looks at every tensor it shows, while the engine runs.

Each tensor is held against the reference's, which lies in a golden file, inside the engine's own callback, and then
forgotten: of a model with a thousand layers one tensor is in memory at a time, and a few numbers about each come back.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.golden import GoldenReader
from surgeon_debug.runners.catalogue import make_runner
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_debug.runners.tensorrt.debug_listener import Shown
from surgeon_debug.runners.tensorrt.inspector import info_from_json
from surgeon_debug.runners.tensorrt.layer_map import LayerMap, ModelTensor
from surgeon_debug.runners.tensorrt.runner import TensorRT
from surgeon_debug.screen import Screen
from surgeon_debug.values import Feeds, Value, normalise
from surgeon_passes.errors import BadOptionError, EngineError, FileError

SEEN = "surgeon.seen"
"""Under this name comes a JSON text: what was seen in the run, see :class:`Look`."""


@dataclasses.dataclass(frozen=True)
class Look:
    """One tensor of the engine, held against one of the model."""

    name: str
    """Its name in the engine."""
    occurrence: int
    """How often this run had shown it before."""
    tensor: str
    """The tensor of the model; empty if it is none, or the reference has none."""
    how: str
    """How that one was found: ``name``, ``group`` or ``unknown``."""
    choices: int
    """How many tensors of the model it may be; each of them has a look of its own."""
    rel_l2: float
    """Relative L2 error over the elements that are finite on both sides; 0 without a tensor of the model."""
    max_abs: float
    """Largest absolute error."""
    special: int
    """NaN and Inf on one side only; without a tensor of the model, those that there are."""
    mismatch: str
    """Why the two cannot be compared; empty if they can."""
    dtype: str
    """Its type."""
    nbytes: int
    """Bytes of it in memory."""

    @property
    def words(self) -> str:
        """How far it is off, as the end of a sentence."""
        if self.mismatch:
            return f"cannot be compared: {self.mismatch}"
        if self.special:
            return f"has {self.special:,} NaN or Inf that the reference has not, or the other way round"
        return f"is off by {self.rel_l2:.2g} (relative L2)"


class Watch:
    """TensorRT, watched.

    Args:
        runner: The text of the runner ``tensorrt`` with its options.
        golden: The reference's values, a golden file.
        tensors: A JSON file of the model's tensors: by name a list of the node, the sizes or null, and the type.

    Raises:
        BadOptionError: The runner is another, or a file is not of that form.
    """

    observes = True

    def __init__(self, runner: str, golden: Path, tensors: Path) -> None:
        inner = make_runner(parse_runner(runner)[0])
        if not isinstance(inner, TensorRT):
            raise BadOptionError(f"{runner} shows no tensors while it runs", hint="only tensorrt does")
        self._inner = inner
        self._inner.listen = self._look
        self._golden = GoldenReader(golden)
        self._tensors = _read_tensors(tensors)
        self._sample = 0
        self._seen: list[Look] = []
        self._map: LayerMap | None = None
        self._document: Any = None

    @property
    def precision(self) -> str | None:
        """The runner's own."""
        return self._inner.precision

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Prepare the runner; the samples of the golden file are run from the first on."""
        self._sample = 0
        self._inner.prepare(model_path, [name for name in outputs if name != SEEN])

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Run the next sample; what was seen comes with the outputs."""
        self._seen = []
        found = self._inner.run(feeds)
        self._sample += 1
        said = json.dumps([dataclasses.asdict(look) for look in self._seen])
        return {**found, SEEN: np.array([said], dtype=object)}

    def _layer_map(self) -> LayerMap:
        """The way from the present engine's tensors to the model's."""
        document = self._inner.document
        if self._map is None or document is not self._document:
            self._document = document
            self._map = LayerMap(info_from_json(document.get("layers", ())), self._tensors)
        return self._map

    def _look(self, shown: Shown) -> None:
        """Hold a tensor against the reference's."""
        value = np.asarray(normalise(shown.value))
        found = self._layer_map()
        linear = found.linear(shown.name)
        match = found.tensor(shown.name, value.shape, value.dtype.name)
        names = [name for name in match.candidates if self._golden.has(self._sample, name)]
        lie = "its elements do not lie in order" if linear is False else ""
        for name in names:
            look = look_at(name, value, self._golden.get(self._sample, name), lie)
            how, choices = match.how.value, len(names)
            self._seen.append(
                dataclasses.replace(look, name=shown.name, occurrence=shown.occurrence, how=how, choices=choices)
            )
        if not names:
            numbers = (0.0, 0.0, _special(value), lie)
            self._seen.append(
                Look(shown.name, shown.occurrence, "", match.how.value, 0, *numbers, value.dtype.name, value.nbytes)
            )

    def close(self) -> None:
        """Close runner and file."""
        self._inner.close()
        self._golden.close()


def look_at(name: str, value: Value, reference: Value, mismatch: str = "") -> Look:
    """A tensor of the model held against the reference's.

    Args:
        name: Its name in the model.
        value: As an engine has it.
        reference: As the reference has it.
        mismatch: Why the two cannot be compared, if that is known already.
    """
    screen = Screen(mismatch=mismatch)
    if not mismatch:
        screen.add(reference, value)
    special = screen.nan.mismatched + screen.posinf.mismatched + screen.neginf.mismatched
    rel_l2 = screen.rel_l2 if not screen.exact else screen.unequal / max(1, screen.elements)
    numbers = (float(rel_l2), float(screen.max_abs), special, screen.mismatch)
    array = np.asarray(value)
    return Look(name, 0, name, "name", 1, *numbers, array.dtype.name, array.nbytes)


def _special(value: np.ndarray[Any, Any]) -> int:
    if value.dtype.kind in "biuO" or "int" in value.dtype.name:
        return 0
    with np.errstate(invalid="ignore"):
        return int(np.count_nonzero(~np.isfinite(value.astype(np.float32))))


def _read_tensors(path: Path) -> dict[str, ModelTensor]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: ModelTensor(node, None if shape is None else tuple(shape), kind)
            for name, (node, shape, kind) in held.items()
        }
    except OSError as error:
        raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise BadOptionError(f"holds no tensors of a model: {error}", where=str(path)) from error


def looks_of(text: str) -> list[Look]:
    """What was seen in a run, from the text that came with its outputs.

    Raises:
        EngineError: It is none of ours.
    """
    try:
        return [Look(**held) for held in json.loads(text)]
    except (TypeError, ValueError) as error:
        raise EngineError(f"what the engine showed cannot be read: {error}") from error
