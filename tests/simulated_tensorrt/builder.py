"""The builder: from a network and a configuration to an engine file, or None and a reason in the log."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
import zlib
from collections.abc import Callable
from typing import Any

from tests.simulated_tensorrt.attributes import Rooted
from tests.simulated_tensorrt.autotune import Autotuner, BuildRefusedError, Tuning
from tests.simulated_tensorrt.callbacks import Journal
from tests.simulated_tensorrt.config import new_config
from tests.simulated_tensorrt.engine_file import EngineData, EngineLayer, Profile, Sick, to_bytes
from tests.simulated_tensorrt.faults import hits
from tests.simulated_tensorrt.fusion import groups_of
from tests.simulated_tensorrt.graph import Graph, infer
from tests.simulated_tensorrt.lay_out import layers_of
from tests.simulated_tensorrt.plan import BUILDING, Fault, Plan
from tests.simulated_tensorrt.pybind import make
from tests.simulated_tensorrt.routes import read_route
from tests.simulated_tensorrt.shape_inputs import shape_inputs

_WHERE = "IBuilder::buildSerializedNetwork"


class Builder(Rooted):
    """Makes networks, configurations and engines."""

    _trt: Any
    _plan: Plan
    _journal: Journal
    _version: str
    _classes: dict[str, Any]

    def __init__(self, logger: Any) -> None:
        if self._plan.devices == 0:
            self._journal.register(logger)
            self._journal.error("CUDA initialization failure with error: 100. No CUDA-capable device is detected.")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._journal.register(logger)
        self._own_logger = logger
        self._recorder: Any = None
        self._threads = 1

    def create_network(self, flags: int = 0) -> Any:
        return make(
            self._trt.INetworkDefinition,
            _graph=None,
            _outputs=[],
            _marked=[],
            _unfused=False,
            _tensors={},
            _flags=flags,
            _builder=self,
            _name="Unnamed Network 0",
            _recorder=None,
        )

    def create_builder_config(self) -> Any:
        return new_config(self._classes, self._plan, self._journal, self._version)

    def create_optimization_profile(self) -> Any:
        return make(self._trt.IOptimizationProfile, _shapes={}, _values={})

    def is_network_supported(self, network: Any, config: Any) -> bool:
        return network._graph is not None

    def reset(self) -> None:
        return None

    def build_serialized_network(self, network: Any, config: Any, kernel_text: Any = None) -> Any:
        recorders = (self._recorder, network._recorder)
        journal = self._journal
        journal.cut_after(None)
        if any(fault.effect == "log_truncated" for fault in self._plan.faults):
            journal.cut_after(20)
        try:
            blob = _Build(self._trt, self._plan, journal, self._version, network, config).run()
        except BuildRefusedError as error:
            journal.error(str(error), code=error.code, recorders=recorders, where=_WHERE)
            return None
        finally:
            journal.cut_after(None)
        return make(self._trt.IHostMemory, _data=blob)

    def build_engine_with_config(self, network: Any, config: Any) -> Any:
        blob = self.build_serialized_network(network, config)
        return None if blob is None else self._trt.Runtime(self._own_logger).deserialize_cuda_engine(blob)

    def build_serialized_network_to_stream(self, network: Any, config: Any, writer: Any) -> bool:
        blob = self.build_serialized_network(network, config)
        if blob is None:
            return False
        data = bytes(blob)
        return bool(writer.write(data, len(data)) == len(data))

    @property
    def max_DLA_batch_size(self) -> int:
        return 1


class _Build:
    """One build.

    Args:
        trt: The module.
        plan: What is wrong.
        journal: Where the log goes.
        version: Of the library.
        network: The network.
        config: The configuration.
    """

    def __init__(self, trt: Any, plan: Plan, journal: Journal, version: str, network: Any, config: Any) -> None:
        self.trt, self.plan, self.journal, self.version = trt, plan, journal, version
        self.network, self.config = network, config
        self.knobs = read_route(config.build_route if hasattr(config, "build_route") else "")[0]
        self.level = config.builder_optimization_level

    def run(self) -> bytes:
        """The engine file.

        Raises:
            BuildRefusedError: The build fails.
        """
        graph = self._checked()
        profiles = self._profiles(graph)
        journal = self.journal
        if self._has("MONITOR_MEMORY"):
            journal.verbose("Memory consumption: 0 MB host, 0 MB device")
        self._phase("Building engine from network", 3)
        layers = tuple(self._layers(graph, profile, i) for i, profile in enumerate(profiles))
        self._step("Building engine from network", 1)
        sick = self._sick(graph, layers)
        self._fail(sick)
        data = self._data(layers, tuple(profiles), sick)
        self._step("Building engine from network", 2)
        if self.config._cache is not None:
            journal.info(f"Serializing timing cache. UUID = {zlib.crc32(self.plan.device.encode()):08x}")
        if data.verbosity == int(self.trt.ProfilingVerbosity.DETAILED):
            journal.verbose("Engine Layer Information:")
            for layer in layers[0]:
                journal.verbose(f"Layer({layer.kind}): {layer.name}")
        self._monitor("phase_finish", "Building engine from network")
        journal.info(f"Engine generation completed in 0.01 seconds. {len(layers[0])} layers.")
        return to_bytes(data, graph.model.SerializeToString())

    def _checked(self) -> Graph:
        graph: Graph | None = self.network._graph
        if graph is None or not self.network._outputs:
            raise BuildRefusedError(4, "Network must have at least one output")
        strong = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")  # noqa: B009
        if self.version.startswith("10.") and not self.network._flags >> int(strong) & 1:
            self.journal.warning("The network is weakly typed; the simulator builds it as if it were strongly typed.")
        return graph

    def _profiles(self, graph: Graph) -> list[Profile]:
        hosted = shape_inputs(graph)
        dynamic = [n for n in graph.inputs if -1 in (graph.shapes.get(n) or ())]
        given = [Profile(p._shapes, p._values) for p in self.config._profiles]
        if not given:
            if dynamic or hosted:
                raise BuildRefusedError(
                    4,
                    f"Network has dynamic or shape inputs, but no optimization profile has been defined: "
                    f"{', '.join([*dynamic, *sorted(hosted)])}",
                )
            given = [Profile({}, {})]
        for profile in given:
            for name in dynamic:
                if name not in profile.shapes:
                    raise BuildRefusedError(4, f"{name}: dynamic input is missing dimensions in profile")
                self._checked_range(graph, name, profile)
            for name in hosted - set(profile.values):
                raise BuildRefusedError(4, f"{name}: shape input is missing values in profile")
        static = {n: tuple(graph.shapes.get(n) or ()) for n in graph.inputs if n not in dynamic}
        return [
            Profile({**{n: (s, s, s) for n, s in static.items()}, **profile.shapes}, profile.values)
            for profile in given
        ]

    def _checked_range(self, graph: Graph, name: str, profile: Profile) -> None:
        declared = graph.shapes.get(name) or ()
        for sizes in profile.shapes[name]:
            if len(sizes) != len(declared) or any(d not in (-1, s) for d, s in zip(declared, sizes, strict=True)):
                raise BuildRefusedError(4, f"{name}: profile shape {sizes} does not fit the input's {declared}")

    def _layers(self, graph: Graph, profile: Profile, number: int) -> tuple[EngineLayer, ...]:
        optimum = {name: sizes[1] for name, sizes in profile.shapes.items()}
        tuned = dataclasses.replace(graph)
        if any(-1 in (graph.shapes.get(n) or ()) for n in graph.inputs):
            tuned.types, tuned.shapes = infer(graph.model, graph.constants, optimum)
        marked = [*self.network._marked, *self.network._outputs]
        groups = groups_of(tuned, self.knobs, self.level, marked)
        self._say_fusions(graph, groups)
        tuner = Autotuner(tuned, self.config._cache, self.plan, self.journal)
        tuning = self._tuning(number, optimum)
        choices = [tuner.choose(group, tuning) for group in groups]
        if any(fault.effect == "tactic_not_applied" for fault in self.plan.faults):
            free = Autotuner(tuned, None, self.plan, _Silent(self.trt, self.plan))
            choices = [free.choose(group, dataclasses.replace(tuning, strict=False)) for group in groups]
        return layers_of(
            tuned, groups, choices, self.network._outputs, self.network._marked, number, self.plan.hidden_share
        )

    def _tuning(self, number: int, sizes: dict[str, tuple[int, ...]]) -> Tuning:
        return Tuning(
            editable=self._has("EDITABLE_TIMING_CACHE"),
            strict=self._has("ERROR_ON_TIMING_CACHE_MISS"),
            uses_cache=not self._has("DISABLE_TIMING_CACHE") and self.level > 0,
            ignores_cache=any(fault.effect == "cache_ignored" for fault in self.plan.faults),
            tf32=self._has("TF32"),
            level=self.level,
            most=self.config.max_num_tactics,
            profile=number,
            sizes=sizes,
            flags=tuple(name for name in ("REFIT", "STRICT_NANS", "SPARSE_WEIGHTS") if self._has(name)),
            seed=self.plan.timing_seed,
            workspace=self.config.get_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE),
        )

    def _has(self, flag: str) -> bool:
        member = getattr(self.trt.BuilderFlag, flag, None)
        return member is not None and bool(self.config._flags >> int(member) & 1)

    def _say_fusions(self, graph: Graph, groups: list[Any]) -> None:
        self.journal.verbose(f"Original: {len(graph.nodes)} layers")
        for group in groups:
            names = [graph.nodes[i].name for i in group.nodes]
            for first, second in itertools.pairwise(names):
                rule = "ConvReluFusion" if group.kind == "conv" else "PointWiseFusion"
                self.journal.verbose(f"{rule}: Fusing {first} with {second}")
        self.journal.verbose(f"After vertical fusions: {len(groups)} layers")

    def _sick(self, graph: Graph, layers: tuple[tuple[EngineLayer, ...], ...]) -> tuple[Sick, ...]:
        found = []
        for fault in self.plan.faults:
            tf32 = self._has("TF32")
            places = tuple(hits(fault, ls, graph, knobs=self.knobs, level=self.level, tf32=tf32) for ls in layers)
            if any(places):
                found.append(Sick(fault, places))
        return tuple(found)

    def _fail(self, sick: tuple[Sick, ...]) -> None:
        for one in sick:
            if one.fault.effect in BUILDING:
                _FAILURES[one.fault.effect](one.fault)

    def _data(
        self, layers: tuple[tuple[EngineLayer, ...], ...], profiles: tuple[Profile, ...], sick: tuple[Sick, ...]
    ) -> EngineData:
        return EngineData(
            version=self.version,
            device=self.plan.device,
            name=self.network._name,
            layers=layers,
            profiles=profiles,
            outputs=tuple(self.network._outputs),
            marked=tuple(self.network._marked),
            unfused=self.network._unfused,
            tf32=self._has("TF32"),
            verbosity=int(self.config.profiling_verbosity),
            level=self.level,
            refittable=self._has("REFIT"),
            tactic_sources=self.config.get_tactic_sources(),
            sick=sick,
            traits=dataclasses.replace(self.plan, faults=()),
        )

    def _phase(self, name: str, steps: int) -> None:
        self._monitor("phase_start", name, "", steps)
        self._step(name, 0)

    def _step(self, name: str, step: int) -> None:
        if self._monitor("step_complete", name, step) is False:
            raise BuildRefusedError(10, "Engine build was cancelled by the progress monitor")

    def _monitor(self, method: str, *args: Any) -> Any:
        monitor = self.config.progress_monitor
        return None if monitor is None else getattr(monitor, method)(*args)


class _Silent(Journal):
    """Says nothing."""

    def _write(self, severity: int, words: str) -> None:
        return None


def _build_none(fault: Fault) -> None:
    words = f"Could not find any implementation for node {fault.where.node or fault.where.op or '{ForeignNode[...]}'}."
    raise BuildRefusedError(10, words)


def _build_hang(fault: Fault) -> None:
    while True:
        time.sleep(60)


def _build_crash(fault: Fault) -> None:
    os.abort()


_FAILURES: dict[str, Callable[[Fault], None]] = {
    "build_none": _build_none,
    "build_hang": _build_hang,
    "build_crash": _build_crash,
}
