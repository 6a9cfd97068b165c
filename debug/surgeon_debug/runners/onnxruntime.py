"""onnxruntime: the reference of every comparison unless another is named, and the embedded default."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.runners.exposure import InterfaceMemory, tail_of, with_tail
from surgeon_debug.values import Feeds, Value, decode, element_type_of, encode, is_foreign
from surgeon_passes.errors import BadOptionError, EngineError

_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
_IR_LIMIT = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_NATIVE = re.compile(
    r"^tensor\((float|double|float16|u?int(8|16|32|64)|bool|string|complex64|complex128)\)$"
)  # element types that onnxruntime's own Python can turn into numpy


class OnnxRuntime:
    """Run a model with onnxruntime.

    Args:
        providers: Execution providers in order, separated by ``;``: ``cpu``, ``cuda``, ``tensorrt``, or full names.
            A provider that is not there is an error, never a silent fallback.
        optimize: Graph optimisation: ``none``, ``basic``, ``extended``, ``layout`` or ``all``.
        threads: Threads inside an operator; 0 lets onnxruntime choose.
        deterministic: Ask for kernels that give the same result on every run.
        config: Session configuration entries by key, as in ``config.session.disable_prepacking=1``.

    Raises:
        BadOptionError: An option has no such value.
        EngineError: A provider is not available here.
    """

    def __init__(
        self,
        providers: str = "cpu",
        optimize: str = "all",
        threads: int = 0,
        deterministic: bool = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        if optimize not in _LEVELS:
            raise BadOptionError(
                f"onnxruntime has no optimisation level '{optimize}'", hint=f"use one of {', '.join(_LEVELS)}"
            )
        if threads < 0:
            raise BadOptionError(f"threads={threads} is not a number of threads", hint="use 0 or more")
        self._providers = _resolve(providers)
        self._optimize = optimize
        self._threads = threads
        self._deterministic = deterministic
        self._config = dict(config or {})
        self._interfaces = InterfaceMemory()
        self._session: Any = None
        self._wanted: list[str] = []

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Make a session in which all of ``outputs`` that the main graph has can be fetched."""
        self.close()
        interface = self._interfaces.of(model_path)
        hidden = interface.hidden(outputs)
        try:
            self._session = self._make(model_path, tail_of(hidden) if hidden else b"")
        except Exception as error:
            limit = _IR_LIMIT.search(str(error))
            if limit is None:
                raise
            # Types and operators are checked on their own; only the number stands in the way.
            self._session = self._make(model_path, tail_of(hidden, ir_version=int(limit[2])))
        self._check_providers()
        available = {*hidden, *interface.outputs}
        self._wanted = [name for name in dict.fromkeys(outputs) if name in available]

    def _make(self, model_path: Path, tail: bytes) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4  # what it has to say is in the error
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[self._optimize])
        options.intra_op_num_threads = self._threads
        options.use_deterministic_compute = self._deterministic
        source: Any = str(model_path)
        if tail:
            # A model given as bytes has no folder of its own to look for its external weights in.
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(model_path.resolve().parent))
            source = with_tail(model_path, tail)
        for key, value in self._config.items():
            options.add_session_config_entry(key, value)
        return ort.InferenceSession(source, options, providers=self._providers)

    def _check_providers(self) -> None:
        active = self._session.get_providers()
        lost = [name for name in self._providers if name not in active]
        if lost:
            self.close()
            raise EngineError(
                f"onnxruntime could not start {lost[0]} and would have used {active[0]} instead",
                hint="install what the provider needs, or name another one",
            )

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once; numbers in types numpy lacks come back as arrays of ml_dtypes."""
        if self._session is None:
            raise EngineError("onnxruntime was asked to run before a model was prepared")
        given = {item.name for item in self._session.get_inputs() + self._session.get_overridable_initializers()}
        kinds = {item.name: item.type for item in self._session.get_outputs()}
        sent = {name: _outgoing(value) for name, value in feeds.items() if name in given}
        tensors = {name for name in self._wanted if kinds[name].startswith("tensor(")}
        foreign = [name for name in self._wanted if name in tensors and not _NATIVE.match(kinds[name])]
        apart = set(foreign)
        native = [name for name in self._wanted if name not in apart]
        result: dict[str, Value] = {}
        if foreign:
            # One run serves both kinds, unless something among them is no tensor, which only the plain call returns.
            together = tensors.issuperset(native)
            result.update(self._fetch_buffers(foreign + native if together else foreign, sent))
            native = [] if together else native
        if native:
            result.update(zip(native, self._session.run(native, sent), strict=True))
        return {name: result[name] for name in self._wanted}

    def _fetch_buffers(self, names: list[str], sent: Mapping[str, Any]) -> dict[str, Value]:
        import onnxruntime as ort

        values = {}
        for name, value in sent.items():
            if not isinstance(value, ort.OrtValue):
                if not isinstance(value, np.ndarray) or value.dtype == object:
                    raise EngineError(
                        f"onnxruntime's Python cannot fetch {names[0]}, whose type numpy lacks, while input '{name}' "
                        "is text or no tensor"
                    )
                value = ort.OrtValue.ortvalue_from_numpy(value)
            values[name] = value
        fetched = self._session.run_with_ort_values(names, values)
        result = {}
        for name in names:
            result[name] = _incoming(fetched.pop(0))  # each buffer is freed once it is copied
        return result

    def close(self) -> None:
        """Drop the session and its memory."""
        self._session = None


def _resolve(text: str) -> list[str]:
    """Full provider names from short ones, all of them available here."""
    import onnxruntime as ort

    available = ort.get_available_providers()
    known = {name.removesuffix("ExecutionProvider").lower(): name for name in ort.get_all_providers()}
    chosen = []
    for word in filter(None, (part.strip() for part in text.split(";"))):
        name = known.get(word.removesuffix("ExecutionProvider").lower())
        if name is None:
            raise BadOptionError(
                f"onnxruntime has no execution provider '{word}'", hint=f"use one of {', '.join(sorted(known))}"
            )
        if name not in available:
            short = ", ".join(n.removesuffix("ExecutionProvider").lower() for n in available)
            raise EngineError(f"this build of onnxruntime does not contain {name}", hint=f"it has {short}")
        chosen.append(name)
    return chosen or ["CPUExecutionProvider"]


def _outgoing(value: Value) -> Any:
    """A value as onnxruntime takes it; types numpy lacks go as a raw buffer with their ONNX type."""
    if not isinstance(value, np.ndarray) or not is_foreign(value.dtype):
        return np.ascontiguousarray(value) if isinstance(value, np.ndarray) and value.ndim else value
    import onnxruntime as ort

    element_type = element_type_of(value)
    packed = np.frombuffer(encode(value, element_type), np.uint8)
    if value.dtype.itemsize > 1:
        buffer = packed.view(f"u{value.dtype.itemsize}").reshape(value.shape)
    else:
        # onnxruntime takes the shape from the buffer, one byte an element; packed types fill only its beginning.
        buffer = np.zeros(value.shape, np.uint8)
        buffer.reshape(-1)[: packed.size] = packed
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(buffer, element_type)


def _incoming(value: Any) -> Value:
    """The content of an OrtValue that holds a tensor."""
    if _NATIVE.match(value.data_type()):
        return value.numpy()
    if value.device_name() != "cpu":
        raise EngineError(f"onnxruntime left a {value.data_type()} on {value.device_name()}, where it cannot be read")
    size = value.tensor_size_in_bytes()
    raw = ctypes.string_at(value.data_ptr(), size) if size else b""
    return decode(raw, value.element_type(), value.shape())
