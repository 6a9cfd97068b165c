"""What a runner is, and the guard that stands around every one of them.

A runner is any class that follows :class:`Runner`; ours and a user's are held to the same terms. :class:`Engine` is
how the rest of this package sees one: whatever the runner does wrong comes out as one EngineFailure sentence that names
the runner, the model and the engine's own words.

Runners may live in another Python environment, with numpy and their engine and nothing else; so nothing here needs
more than numpy.
"""

from __future__ import annotations

import logging
import re
import tempfile
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Protocol, runtime_checkable

from surgeon_debug.endings import EngineFailure
from surgeon_debug.runners.exposure import exposed
from surgeon_debug.values import Feeds, Value, normalise, to_buffers
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

    Three more things are looked for and may be absent: a method ``close()``, called when the runner is not needed any
    more; an attribute ``precision``, the name of the coarsest floating-point type the engine computes in if that
    is coarser than what the model says (``float16``, ``bfloat16``, ``tf32``); and an attribute ``observes``, true if
    the runner shows tensors inside the model by means of its own. Without it those that are wanted have been made
    outputs of the model that it is given.
    """

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Compile a model; called again for another model or other outputs, it replaces what was prepared before.

        Args:
            model_path: An ONNX file in binary form; external weights are in its folder, some perhaps as links.
            outputs: Every tensor wanted, graph outputs and, if the runner ``observes``, tensors inside the main graph,
                by name. A name that the model does not have is left out of the results.
        """
        ...

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Run the prepared model once.

        Args:
            feeds: A value for every graph input, by name, not to be written to; numbers in types numpy lacks are
                :class:`surgeon_debug.element_types.Buffer`, which ``np.asarray`` turns into arrays of ml_dtypes.

        Returns:
            The wanted tensors by their names in the model, in types numpy lacks as arrays of ml_dtypes or as Buffers.
            A tensor that the engine cannot show is left out; it is reported as missing, and never replaced by another.
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
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    @property
    def precision(self) -> str | None:
        """The coarsest type the engine computes in if it is coarser than the model's own; None otherwise."""
        precision = getattr(self.runner, "precision", None)
        return precision if isinstance(precision, str) else None

    def ready(self) -> None:
        """Wait until the engine is there; one in a process of its own starts in the background.

        Raises:
            BadOptionError: The runner does not exist or does not have such an option.
            EngineError: It cannot start.
        """
        ready = getattr(self.runner, "ready", None)
        if ready is not None:
            ready()

    def prepare(self, model_path: Path, outputs: Iterable[str]) -> None:
        """Compile a model; see :meth:`Runner.prepare`. After any failure the engine can be prepared again.

        Args:
            model_path: An ONNX file in binary form.
            outputs: Every tensor wanted, graph outputs and tensors inside the main graph, by name.

        Raises:
            EngineFailure: The engine refused it, or its process crashed, left, hung or ran out of memory.
        """
        wanted = list(dict.fromkeys(outputs))
        self._model, self._wanted = model_path.name, frozenset(wanted)
        try:
            path = model_path if getattr(self.runner, "observes", False) else self._exposed(model_path, wanted)
            self.runner.prepare(path, wanted)
        except Exception as error:  # noqa: BLE001  (a runner may raise anything)
            self._refuse(f"cannot prepare {self._model}", error)

    def _exposed(self, model_path: Path, wanted: Sequence[str]) -> Path:
        self._forget_copies()
        self._copies = tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True)
        return exposed(model_path, wanted, Path(self._copies.name))

    def _forget_copies(self) -> None:
        if self._copies is not None:
            self._copies.cleanup()
            self._copies = None

    def fetch(self, feeds: Feeds) -> dict[str, Value]:
        """Run the prepared model; see :meth:`Runner.run`.

        Returns:
            The wanted tensors that the engine delivered, as it returned them.

        Raises:
            EngineFailure: As for :meth:`prepare`, or it returned something that is not a mapping of names to values.
        """
        try:
            values = self.runner.run({name: to_buffers(value) for name, value in feeds.items()})
        except Exception as error:  # noqa: BLE001  (a runner may raise anything)
            self._refuse(f"failed while running {self._model}", error)
        if not isinstance(values, Mapping):
            raise EngineFailure(
                f"{self.label} returned {type(values).__name__} from run",
                hint="return a dict of tensor names and arrays",
            )
        strangers = sorted(str(name) for name in values if name not in self._wanted)
        if strangers:
            _log.info("%s returned tensors nobody asked for: %s", self.label, ", ".join(strangers[:5]))
        return {name: value for name, value in values.items() if name in self._wanted}

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run the prepared model; see :meth:`Runner.run`.

        Returns:
            Normalised values of the wanted tensors that the engine delivered.

        Raises:
            EngineFailure: As for :meth:`fetch`, or a value is none that a model can have.
        """
        values = self.fetch(feeds)
        found = {}
        for name in list(values):
            try:
                found[name] = normalise(values.pop(name))
            except Exception as error:  # noqa: BLE001  (whatever a runner returned is asked to become an array)
                self.returned_rubbish(ValueError(f"'{name}': {error}"))
        return found

    def returned_rubbish(self, error: ValueError) -> NoReturn:
        """Raise what follows from a result that is no value."""
        self._refuse(f"returned something that is no value for {self._model}", error)

    def _refuse(self, did: str, error: Exception) -> NoReturn:
        if isinstance(error, EngineError) and not isinstance(error, EngineFailure):
            raise EngineFailure(error.what, where=error.where, hint=error.hint) from error
        if isinstance(error, SurgeonError):
            raise error
        raise EngineFailure(f"{self.label} {did}: {words_of(error)}") from error

    def close(self) -> None:
        """Let the runner release what it holds; what goes wrong on the way is logged, not raised."""
        self._forget_copies()
        close = getattr(self.runner, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception as error:  # noqa: BLE001  (the results are in; a failing goodbye must not lose them)
            _log.warning("%s failed to close: %s", self.label, words_of(error))

    def abort(self) -> None:
        """End an engine that has a process of its own at once, from any thread, for good; others are left alone."""
        abort = getattr(self.runner, "abort", None)
        if abort is not None:
            abort()

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
