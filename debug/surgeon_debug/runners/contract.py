"""What a runner is, and the guard that stands around every one of them.

A runner is any class that follows :class:`Runner`; ours and a user's are held to the same terms. :class:`Engine` is
how the rest of this package sees one: whatever the runner does wrong comes out as one EngineError sentence that names
the runner, the model and the engine's own words.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from surgeon_debug.values import Feeds, Value, normalise
from surgeon_passes.errors import EngineError, SurgeonError

_log = logging.getLogger(__name__)

_MAX_WORDS = 240
_SIGNATURE = r"(?:[\w:<>*&,~ ]+\((?:[^()]|\([^()]*\))*\)(?: const)? )?"
_NOISE = (
    (re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "), ""),
    (re.compile(r"(?:/?[\w.+-]+/)*[\w.+-]+\.(?:cc|cpp|h|hpp):\d+:? " + _SIGNATURE), ""),
    (
        re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: "),
        r"\1 '\2': ",
    ),
    (re.compile(r"(\w+) '': "), r"\1: "),
    (re.compile(r"Exception from (?:(?:[\w.+-]+/)*[\w.+-]+:\d+:? )?"), ""),
    (re.compile(r"Check '.*?' failed at (?:FrontEnd API failed with \w+: )?"), ""),
)


@runtime_checkable
class Runner(Protocol):
    """What an engine must offer; options arrive as keyword arguments of ``__init__``, typed by their annotations.

    Two more things are looked for and may be absent: a method ``close()``, called when the runner is not needed any
    more, and an attribute ``precision``, the name of the coarsest floating-point type the engine computes in if that
    is coarser than what the model says (``float16``, ``bfloat16``).
    """

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Compile a model; called again for another model or other outputs, it replaces what was prepared before.

        Args:
            model_path: An ONNX file in binary form; external weights are in its folder.
            outputs: Every tensor wanted, graph outputs and tensors inside the main graph, by name.
        """
        ...

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Run the prepared model once.

        Args:
            feeds: A value for every graph input, by name; numbers in types numpy lacks are arrays of ml_dtypes.

        Returns:
            The wanted tensors by their names in the model. A tensor that the engine cannot show is left out; it is
            reported as missing, and never replaced by another.
        """
        ...


class Engine:
    """A runner with its label, guarded.

    Args:
        label: How messages and results call it: the text that the runner was made from.
        runner: The runner.
    """

    def __init__(self, label: str, runner: Runner) -> None:
        self.label = label
        self.runner = runner
        self._model = ""
        self._wanted: frozenset[str] = frozenset()

    @property
    def precision(self) -> str | None:
        """The coarsest type the engine computes in if it is coarser than the model's own; None otherwise."""
        precision = getattr(self.runner, "precision", None)
        return precision if isinstance(precision, str) else None

    def prepare(self, model_path: Path, outputs: Iterable[str]) -> None:
        """Compile a model; see :meth:`Runner.prepare`.

        Raises:
            EngineError: The engine refused it.
        """
        wanted = list(dict.fromkeys(outputs))
        self._model, self._wanted = model_path.name, frozenset(wanted)
        try:
            self.runner.prepare(model_path, wanted)
        except SurgeonError:
            raise
        except Exception as error:
            raise EngineError(f"{self.label} cannot prepare {self._model}: {words_of(error)}") from error

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run the prepared model; see :meth:`Runner.run`.

        Returns:
            Normalised values of the wanted tensors that the engine delivered.

        Raises:
            EngineError: The engine failed, or returned something that is not a mapping of names to values.
        """
        try:
            values = self.runner.run(feeds)
        except SurgeonError:
            raise
        except Exception as error:
            raise EngineError(f"{self.label} failed while running {self._model}: {words_of(error)}") from error
        if not isinstance(values, Mapping):
            raise EngineError(
                f"{self.label} returned {type(values).__name__} from run",
                hint="return a dict of tensor names and arrays",
            )
        strangers = sorted(str(name) for name in values if name not in self._wanted)
        if strangers:
            _log.info("%s returned tensors nobody asked for: %s", self.label, ", ".join(strangers[:5]))
        return {name: normalise(value) for name, value in values.items() if name in self._wanted}

    def close(self) -> None:
        """Let the runner release what it holds; what goes wrong on the way is logged, not raised."""
        close = getattr(self.runner, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception as error:  # noqa: BLE001  (the results are in; a failing goodbye must not lose them)
            _log.warning("%s failed to close: %s", self.label, words_of(error))

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def words_of(error: BaseException) -> str:
    """An engine's own words on one line, without paths of its sources, shortened.

    For errors that Python itself raised the type is named, and the place in the file that raised them.
    """
    text = " ".join(str(error).split())
    for noise, instead in _NOISE:
        text = noise.sub(instead, text)
    text = text.strip(" .;")
    if isinstance(error, (ArithmeticError, AttributeError, LookupError, NameError, TypeError)) or not text:
        frames: list[Any] = traceback.extract_tb(error.__traceback__)
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        text = f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"
    return text if len(text) <= _MAX_WORDS else text[: _MAX_WORDS - 3].rstrip() + "..."
