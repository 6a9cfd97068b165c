"""The builder's configuration and optimisation profiles."""

from __future__ import annotations

from typing import Any

from tests.simulated_tensorrt.attributes import Flagged
from tests.simulated_tensorrt.callbacks import Journal
from tests.simulated_tensorrt.plan import Plan
from tests.simulated_tensorrt.pybind import Classes, make
from tests.simulated_tensorrt.routes import all_routes, read_route
from tests.simulated_tensorrt.timing_cache import new_cache


class IBuilderConfig(Flagged):
    """Everything that a build depends on besides the network."""

    _trt: Any
    _plan: Plan
    _journal: Journal
    _version: str
    _pools: dict[int, int]
    _profiles: list[Any]
    _cache: Any
    _preview: set[int]
    _values: dict[str, Any]

    def _start(self) -> None:
        self._flags = 1 << int(self._trt.BuilderFlag.TF32)
        pools = self._trt.MemoryPoolType
        self._pools = {int(pools.WORKSPACE): self._plan.memory, int(pools.TACTIC_DRAM): self._plan.memory}
        self._profiles = []
        self._cache = None
        self._preview = set()
        self._sources = 3
        trt = self._trt
        self._values = {
            "profiling_verbosity": trt.ProfilingVerbosity.LAYER_NAMES_ONLY,
            "builder_optimization_level": 3,
            "max_num_tactics": -1,
            "avg_timing_iterations": 1,
            "max_aux_streams": -1,
            "tiling_optimization_level": trt.TilingOptimizationLevel.NONE,
            "progress_monitor": None,
            "hardware_compatibility_level": trt.HardwareCompatibilityLevel.NONE,
            "engine_capability": trt.EngineCapability.STANDARD,
            "build_route": "",
            "remote_auto_tuning_config": "",
            "DLA_core": -1,
            "default_device_type": trt.DeviceType.GPU,
            "runtime_platform": trt.RuntimePlatform.SAME_AS_BUILD,
            "l2_limit_for_tiling": 0,
            "profile_stream": 0,
            "plugins_to_serialize": [],
        }

    def reset(self) -> None:
        self._start()

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        if pool_size > self._plan.memory:
            self._journal.error(f"The pool {pool} cannot have {pool_size} bytes; the device has less.", code=3)
            return
        self._pools[int(pool)] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(int(pool), 0)

    def add_optimization_profile(self, profile: Any) -> int:
        if not profile._whole():
            self._journal.error("Profile is incomplete and is not added.", code=3)
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        made = new_cache(self._trt, bytes(serialized_timing_cache), self._version, self._plan.device)
        if made is None:
            self._journal.error("Timing cache cannot be deserialized: bad header.", code=2)
        return made

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache is None:
            return False
        fits = (cache._version, cache._device) == (self._version, self._plan.device)
        if not fits and not ignore_mismatch:
            words = "Timing cache is from another device or version and cannot be used."
            if not self._plan.mismatch_warns or cache._version != self._version:
                self._journal.error(words, code=3)
                return False
            self._journal.warning(words)
            return True
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self._sources = tactic_sources
        return True

    def get_tactic_sources(self) -> int:
        return self._sources

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        (self._preview.add if enable else self._preview.discard)(int(feature))

    def get_preview_feature(self, feature: Any) -> bool:
        return int(feature) in self._preview

    @property
    def int8_calibrator(self) -> Any:
        return None  # of the weakly typed past: can be asked for, not set

    def get_quantization_flag(self, flag: Any) -> bool:
        return False

    def can_run_on_DLA(self, layer: Any) -> bool:
        return False

    @property
    def all_build_routes(self) -> str:
        return all_routes()

    @property
    def build_route(self) -> str:
        return str(self._values["build_route"])

    @build_route.setter
    def build_route(self, value: str) -> None:
        for complaint in read_route(value)[1]:
            self._journal.warning(complaint)
        self._values["build_route"] = value

    @property
    def builder_optimization_level(self) -> int:
        return int(self._values["builder_optimization_level"])

    @builder_optimization_level.setter
    def builder_optimization_level(self, value: int) -> None:
        if not 0 <= value <= 5:
            self._journal.error(f"Builder optimization level {value} is not between 0 and 5.", code=3)
            return
        self._values["builder_optimization_level"] = value


def _stored(name: str) -> property:
    def get(self: Any) -> Any:
        return self._values[name]

    def put(self: Any, value: Any) -> None:
        self._values[name] = value

    return property(get, put)


for _name in (
    "profiling_verbosity",
    "max_num_tactics",
    "avg_timing_iterations",
    "max_aux_streams",
    "tiling_optimization_level",
    "progress_monitor",
    "hardware_compatibility_level",
    "engine_capability",
    "remote_auto_tuning_config",
    "DLA_core",
    "default_device_type",
    "runtime_platform",
    "l2_limit_for_tiling",
    "profile_stream",
    "plugins_to_serialize",
):
    setattr(IBuilderConfig, _name, _stored(_name))


class IOptimizationProfile:
    """Ranges of the sizes of dynamic inputs, and of the values of shape inputs."""

    _trt: Any
    _shapes: dict[str, tuple[tuple[int, ...], ...]]
    _values: dict[str, tuple[tuple[int, ...], ...]]

    def _whole(self) -> bool:
        return bool(self._shapes or self._values)

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        sizes = (tuple(min), tuple(opt), tuple(max))
        if not _ordered(sizes):
            raise RuntimeError("Shape provided for min is inconsistent with other shapes.")
        self._shapes[input] = sizes

    def get_shape(self, input: str) -> list[Any]:
        if input not in self._shapes:
            return []
        return [self._trt.Dims(list(sizes)) for sizes in self._shapes[input]]

    def set_shape_input(self, input: str, min: Any, opt: Any, max: Any) -> None:
        values = (tuple(min), tuple(opt), tuple(max))
        if not _ordered(values):
            raise RuntimeError("min input provided for shape tensor is inconsistent with other inputs.")
        self._values[input] = values

    def get_shape_input(self, input: str) -> list[Any]:
        return [list(values) for values in self._values.get(input, ())]

    def __bool__(self) -> bool:
        return self._whole()

    @property
    def extra_memory_target(self) -> float:
        return 1.0

    @extra_memory_target.setter
    def extra_memory_target(self, value: float) -> None:
        return None


def _ordered(ranges: tuple[tuple[int, ...], ...]) -> bool:
    low, middle, high = ranges
    same = len(low) == len(middle) == len(high)
    return same and all(a <= b <= c for a, b, c in zip(low, middle, high, strict=True))


def new_config(classes: Classes, plan: Plan, journal: Journal, version: str) -> Any:
    """A configuration with the defaults."""
    made = make(classes["IBuilderConfig"], _plan=plan, _journal=journal, _version=version)
    made._start()
    return made
