"""onnxruntime: the reference of every comparison unless another is named, and the embedded default."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.element_types import Buffer, ElementType, packed_size, type_of_name, type_of_number
from surgeon_debug.runners.exposure import InterfaceMemory, linked_folder, tail_of, with_tail
from surgeon_debug.runners.node_seconds import node_seconds
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import BadOptionError, EngineError
from surgeon_passes.spec import convert

_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
_IR_LIMIT = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_TENSOR = re.compile(r"^tensor\((\w+)\)$")
_ON = ("1", "true", "True")


class OnnxRuntime:
    """Run a model with onnxruntime.

    Args:
        providers: Execution providers in order, separated by ``;``: ``cpu``, ``cuda``, ``tensorrt``, or full names.
            A provider that is not there is an error, never a silent fallback.
        optimize: Graph optimisation: ``none``, ``basic``, ``extended``, ``layout`` or ``all``.
        threads: Threads inside an operator; 0 lets onnxruntime choose.
        deterministic: Ask for kernels that give the same result on every run.
        config: Session configuration entries by key, as in ``config.session.disable_prepacking=1``.
        option: Attributes of ``SessionOptions`` by name, as in ``option.enable_cpu_mem_arena=false``.
        provider: Options of the first provider by key, as in ``provider.use_tf32=0``; those of another one carry its
            name, as in ``providers=tensorrt;cuda,provider.cuda.device_id=1``.

    Raises:
        BadOptionError: An option has no such value.
        EngineError: A provider is not available here.
    """

    observes = True

    def __init__(
        self,
        providers: str = "cpu",
        optimize: str = "all",
        threads: int = 0,
        deterministic: bool = False,
        config: Mapping[str, str] | None = None,
        option: Mapping[str, str] | None = None,
        provider: Mapping[str, str] | None = None,
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
        self._options = dict(option or {})
        self._provider_options = _by_provider(self._providers, provider or {})
        self._interfaces = InterfaceMemory()
        self._session: Any = None
        self._remake: Callable[[], Any] | None = None
        self._given: frozenset[str] = frozenset()
        self._kinds: dict[str, ElementType | None] = {}
        self._session_options()  # says now what is wrong with them
        if not {"CUDAExecutionProvider", "TensorrtExecutionProvider"}.isdisjoint(self._providers):
            _load_libraries()

    @property
    def precision(self) -> str | None:
        """The coarsest type it computes in: NVIDIA's tensor cores round float32 to tf32 unless they are told not to."""
        known = {"CUDAExecutionProvider": _cuda_precision, "TensorrtExecutionProvider": _tensorrt_precision}
        said = zip(self._providers, self._provider_options, strict=True)
        found = [known[name](options) for name, options in said if name in known]
        return next((word for word in ("bfloat16", "float16", "tf32") if word in found), None)

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Make a session in which all of ``outputs`` that the main graph has can be fetched."""
        self.close()
        interface = self._interfaces.of(model_path)
        hidden = interface.hidden(outputs)
        folder = linked_folder(model_path, interface)
        tail = tail_of(hidden) if hidden else b""
        try:
            self._session = self._make(model_path, tail, folder)
        except Exception as error:
            limit = _IR_LIMIT.search(str(error))
            if limit is None:
                raise
            # Types and operators are checked on their own; only the number stands in the way.
            self._session = self._make(model_path, tail_of(hidden, ir_version=int(limit[2])), folder)
        self._check_providers()
        self._remake = lambda: self._make(model_path, tail, folder)
        session = self._session
        self._given = frozenset(i.name for i in (*session.get_inputs(), *session.get_overridable_initializers()))
        found = {item.name: _TENSOR.match(item.type) for item in session.get_outputs()}
        available = {*hidden, *interface.outputs}
        wanted = [name for name in dict.fromkeys(outputs) if name in available]
        self._kinds = {name: type_of_name(match[1]) if (match := found[name]) else None for name in wanted}

    def _make(self, model_path: Path, tail: bytes, folder: Path | None) -> Any:
        import onnxruntime as ort

        options = self._session_options()
        source: Any = str(model_path)
        if tail or folder:
            # A model given as bytes has no folder of its own to look for its external weights in. That is also the way
            # to weights behind symbolic links, which onnxruntime does not follow out of a model's folder.
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder or model_path.resolve().parent))
            source = with_tail(model_path, tail)
        for key, value in self._config.items():
            options.add_session_config_entry(key, value)
        owned = [dict(one) for one in self._provider_options]
        session = ort.InferenceSession(source, options, list(self._providers), owned, enable_fallback=0)
        session.disable_fallback()  # it would run on another provider without a word where one fails
        return session

    def _session_options(self) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4  # what it has to say is in the error
        # Two engines run at the same time; threads that spin while they wait take the other one's processors.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[self._optimize])
        options.intra_op_num_threads = self._threads
        if self._deterministic or hasattr(options, "use_deterministic_compute"):
            options.use_deterministic_compute = self._deterministic
        for name, text in self._options.items():
            now = getattr(options, name, None)
            if now is None or callable(now):
                known = [n for n in dir(options) if not n.startswith("_") and not callable(getattr(options, n))]
                raise BadOptionError(f"onnxruntime's SessionOptions has no '{name}'", hint=f"it has {', '.join(known)}")
            setattr(options, name, _typed(text, now, f"onnxruntime:option.{name}"))
        return options

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
        """Run once; numbers in types numpy lacks come back as Buffers."""
        if self._session is None:
            raise EngineError("onnxruntime was asked to run before a model was prepared")
        sent = {name: _outgoing(value) for name, value in feeds.items() if name in self._given}
        plain = [name for name, value in sent.items() if not _is_numbers(value)]
        apart = [name for name, kind in self._kinds.items() if kind is None or kind.onnx_name == "string"]
        foreign = [name for name, kind in self._kinds.items() if kind is not None and kind.foreign]
        # What is text or no tensor only the plain call can handle; types that numpy lacks only the other one.
        if not foreign and (plain or apart):
            return dict(zip(self._kinds, self._session.run(list(self._kinds), sent), strict=True))
        if plain:
            raise EngineError(
                f"onnxruntime's Python cannot fetch '{foreign[0]}', whose type numpy lacks, while input '{plain[0]}' "
                "is text or no tensor"
            )
        found = self._fetch([name for name in self._kinds if name not in set(apart)], sent)
        if apart:
            found.update(zip(apart, self._session.run(apart, sent), strict=True))
        return {name: found[name] for name in self._kinds}

    def layer_times(self, feeds: Feeds, runs: int) -> dict[str, float]:
        """Mean seconds of each node as the session has fused it, over some runs of another session that takes notes."""
        if self._remake is None:
            raise EngineError("onnxruntime was asked for times before a model was prepared")
        kept, options = self._session, self._options
        with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
            self._options = {**options, "enable_profiling": "true", "profile_file_prefix": str(Path(folder) / "p")}
            try:
                self._session = self._remake()
                for _ in range(runs):
                    self.run(feeds)
                return node_seconds(Path(self._session.end_profiling()), runs)
            finally:
                self._session, self._options = kept, options

    def _fetch(self, names: list[str], sent: Mapping[str, Any]) -> dict[str, Value]:
        import onnxruntime as ort

        make = ort.OrtValue.ortvalue_from_numpy
        values = {name: make(value) if isinstance(value, np.ndarray) else value for name, value in sent.items()}
        fetched = self._session.run_with_ort_values(names, values)
        return {name: _incoming(value, self._kinds[name]) for name, value in zip(names, fetched, strict=True)}

    def close(self) -> None:
        """Drop the session and its memory."""
        self._session = self._remake = None
        self._kinds = {}


def _resolve(text: str) -> list[str]:
    """Full provider names from short ones, all of them available here."""
    import onnxruntime as ort

    available = ort.get_available_providers()
    known = {_short(name): name for name in ort.get_all_providers()}
    chosen = []
    for word in filter(None, (part.strip() for part in text.split(";"))):
        name = known.get(word.removesuffix("ExecutionProvider").lower())
        if name is None:
            raise BadOptionError(
                f"onnxruntime has no execution provider '{word}'", hint=f"use one of {', '.join(sorted(known))}"
            )
        if name not in available:
            short = ", ".join(_short(n) for n in available)
            raise EngineError(f"this build of onnxruntime does not contain {name}", hint=f"it has {short}")
        chosen.append(name)
    return chosen or ["CPUExecutionProvider"]


def _by_provider(providers: Sequence[str], given: Mapping[str, str]) -> list[dict[str, str]]:
    """The options of each provider, in their order."""
    shorts = [_short(name) for name in providers]
    found: list[dict[str, str]] = [{} for _ in providers]
    for key, value in given.items():
        owner, dot, inner = key.partition(".")
        if dot and owner in shorts:
            found[shorts.index(owner)][inner] = value
        else:
            found[0][key] = value
    return found


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider").lower()


def _load_libraries() -> None:
    """Load CUDA from NVIDIA's Python packages if it is there: the system's loader does not look for it in them."""
    import onnxruntime as ort

    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # what is lacking will be said when a session is made
            preload()


def _cuda_precision(options: Mapping[str, str]) -> str | None:
    # The library's own switch comes before onnxruntime's.
    off = options.get("use_tf32", "1") not in _ON or os.environ.get("NVIDIA_TF32_OVERRIDE") == "0"
    return None if off else "tf32"


def _tensorrt_precision(options: Mapping[str, str]) -> str | None:
    for key, word in (("trt_bf16_enable", "bfloat16"), ("trt_fp16_enable", "float16")):
        if options.get(key) in _ON:
            return word
    return None if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0" else "tf32"


def _typed(text: str, now: Any, what: str) -> Any:
    """A value of the type that an attribute has now."""
    members = getattr(type(now), "__members__", None)
    if members is None:
        return convert(text, type(now), what)
    if text not in members:
        raise BadOptionError(f"{what} cannot be '{text}'", hint=f"use one of {', '.join(members)}")
    return members[text]


def _is_numbers(value: Any) -> bool:
    return value.dtype.kind not in "USO" if isinstance(value, np.ndarray) else hasattr(value, "data_ptr")


def _outgoing(value: Value) -> Any:
    """A value as onnxruntime takes it; types numpy lacks go as raw bytes with their ONNX type."""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value) if value.ndim else value  # numpy makes a vector of a contiguous scalar
    if not isinstance(value, Buffer):
        return value
    import onnxruntime as ort

    kind = type_of_number(value.element_type)
    if kind.bits > 8:
        raw = value.data.view(f"u{kind.bits // 8}").reshape(value.shape)
    elif value.data.size == np.prod(value.shape):
        raw = value.data.reshape(value.shape)
    else:
        # onnxruntime takes the shape from the buffer, one byte an element; packed types fill only its beginning.
        raw = np.zeros(value.shape, np.uint8)
        raw.reshape(-1)[: value.data.size] = value.data
    make = getattr(ort.OrtValue, "ortvalue_from_numpy_with_onnx_type", None)
    if make is None:
        raise EngineError(
            f"onnxruntime {ort.__version__} cannot be given a tensor of type {kind.dtype_name} from Python"
        )
    return make(raw, kind.number)


class _Memory:
    """Memory of an OrtValue as numpy reads it; it lives as long as the array does."""

    def __init__(self, owner: Any, address: int, size: int) -> None:
        self.owner = owner
        self.__array_interface__ = {"data": (address, False), "shape": (size,), "typestr": "|u1", "version": 3}


def _incoming(value: Any, kind: ElementType | None) -> Value:
    """The content of an OrtValue that holds a tensor of numbers."""
    if kind is None or not kind.foreign:
        return value.numpy()
    if value.device_name() != "cpu":
        raise EngineError(f"onnxruntime left a {kind.dtype_name} on {value.device_name()}, where it cannot be read")
    shape = tuple(value.shape())
    size = packed_size(kind.number, shape)
    data = np.asarray(_Memory(value, value.data_ptr(), size)) if size else np.empty(0, np.uint8)
    return Buffer(kind.number, shape, data)
