"""The shortest way through the simulator: build a model, run an engine, as tests need it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from tests.simulated_tensorrt.device_memory import TO_HOST, device

_TYPES = {"BF16": ml_dtypes.bfloat16, "FP8": ml_dtypes.float8_e4m3fn}


@dataclasses.dataclass
class Built:
    """What a build gave."""

    blob: bytes | None
    """The engine file; None if the build was refused."""
    log: list[tuple[int, str]]
    """(severity, line)."""
    cache: Any
    """The timing cache."""

    @property
    def lines(self) -> list[str]:
        """Lines of the log."""
        return [line for _, line in self.log]

    @property
    def tactics(self) -> dict[str, int]:
        """The tactic's hash by key."""
        return {str(key): self.cache.query(key).tacticHash for key in self.cache.queryKeys()}

    @property
    def errors(self) -> list[str]:
        """Lines that are errors."""
        return [line for severity, line in self.log if severity <= 1]


def logger_of(trt: Any) -> Any:
    """A logger that keeps its lines in ``lines``."""

    class Keeper(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[int, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            self.lines.append((int(severity), msg))

    return Keeper()


def build(
    trt: Any,
    model: onnx.ModelProto | Path,
    *,
    profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]] = (),
    values: Sequence[Mapping[str, Sequence[Sequence[int]]]] = (),
    flags: Sequence[str] = ("EDITABLE_TIMING_CACHE",),
    tf32: bool = False,
    cache: bytes = b"",
    edit: Callable[[Any], None] | None = None,
    network: Callable[[Any], None] | None = None,
    **settings: Any,
) -> Built:
    """Parse and build.

    Args:
        trt: The module.
        model: The model or its file.
        profiles: Shapes (min, opt, max) of inputs for each profile.
        values: The same for the values of shape inputs.
        flags: Builder flags to set.
        tf32: Whether TF32 stays on.
        cache: A timing cache to begin with.
        edit: Changes the timing cache before the build.
        network: Changes the network before the build, marks for instance.
        settings: Attributes of the configuration.
    """
    logger = logger_of(trt)
    trt.IBuilderConfig._journal._logger = None  # a process of its own in this respect
    builder = trt.Builder(logger)
    strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    made = builder.create_network(strong if trt.__version__.startswith("10.") else 0)
    parser = trt.OnnxParser(made, logger)
    data = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    if not parser.parse(data, str(model) if isinstance(model, Path) else None):
        raise ValueError("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    if network is not None:
        network(made)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    for name, value in settings.items():
        setattr(config, name, value)
    timing = config.create_timing_cache(cache)
    if edit is not None:
        edit(timing)
    if not config.set_timing_cache(timing, False):
        raise ValueError("the timing cache was refused")
    _add_profiles(builder, config, profiles, values)
    blob = builder.build_serialized_network(made, config)
    return Built(None if blob is None else bytes(blob), logger.lines, timing)


def _add_profiles(builder: Any, config: Any, profiles: Any, values: Any) -> None:
    for number in range(max(len(profiles), len(values))):
        profile = builder.create_optimization_profile()
        for name, ranges in (profiles[number] if number < len(profiles) else {}).items():
            profile.set_shape(name, *[tuple(sizes) for sizes in ranges])
        for name, ranges in (values[number] if number < len(values) else {}).items():
            profile.set_shape_input(name, *[list(sizes) for sizes in ranges])
        config.add_optimization_profile(profile)


class Session:
    """An engine with a context, fed with arrays.

    Args:
        trt: The module.
        blob: The engine file.
        profile: The optimisation profile.
    """

    def __init__(self, trt: Any, blob: bytes, profile: int = 0) -> None:
        self.trt = trt
        self.runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
        self.engine = self.runtime.deserialize_cuda_engine(blob)
        if self.engine is None:
            raise ValueError("the engine was refused")
        self.context = self.engine.create_execution_context()
        self.stream = device().create_stream()
        if profile:
            self.context.set_optimization_profile_async(profile, self.stream)
        self._hold: list[Any] = []

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Outputs by name.

        Raises:
            RuntimeError: The execution was refused.
        """
        trt, context = self.trt, self.context
        self._hold = []
        for name, value in feeds.items():
            array = np.ascontiguousarray(value)
            self._hold.append(array)
            if not context.set_input_shape(name, array.shape):
                raise RuntimeError(f"shape of {name} was refused")
            context.set_tensor_address(name, self._address(name, array))
        allocator = _allocator(trt)
        outputs = [n for n in self.engine if self.engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
        for name in outputs:
            context.set_output_allocator(name, allocator)
        if not context.execute_async_v3(self.stream):
            raise RuntimeError("the execution was refused")
        device().drain(self.stream)
        return {name: self._fetched(name, allocator) for name in outputs}

    def _address(self, name: str, array: np.ndarray) -> int:
        if self.engine.is_shape_inference_io(name):
            return int(array.ctypes.data)
        address = device().malloc(max(array.nbytes, 1))
        device().copy(address, array.ctypes.data, array.nbytes, 1)
        return address

    def _fetched(self, name: str, allocator: Any) -> np.ndarray:
        kind = self.engine.get_tensor_dtype(name)
        element = _TYPES.get(kind.name) or self.trt.nptype(kind)
        found = np.empty(allocator.shapes[name], element)
        device().copy(found.ctypes.data, allocator.memory[name], found.nbytes, TO_HOST)
        return found

    def information(self) -> str:
        """The inspector's JSON."""
        inspector = self.engine.create_engine_inspector()
        return str(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))


def _allocator(trt: Any) -> Any:
    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.memory: dict[str, int] = {}
            self.shapes: dict[str, tuple[int, ...]] = {}

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            self.memory[name] = device().malloc(size)
            return self.memory[name]

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shapes[name] = tuple(shape)

    return Allocator()
