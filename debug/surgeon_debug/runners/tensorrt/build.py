"""One build: a model parsed, configured, built, and every answer on the way looked at."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.runners.tensorrt import profiles, timing_cache
from surgeon_debug.runners.tensorrt.build_log import attach, make_recorder, process_logger, said
from surgeon_debug.runners.tensorrt.build_request import BuildOptions, route_text
from surgeon_debug.runners.tensorrt.device_memory import DeviceInfo
from surgeon_debug.runners.tensorrt.failures import BuildFailure, BuildStatus
from surgeon_debug.runners.tensorrt.module import has, member, since, version_of
from surgeon_debug.runners.tensorrt.parse import parse_model
from surgeon_debug.runners.tensorrt.partition import explained, partition
from surgeon_debug.runners.tensorrt.tactic_log import onnx_nodes
from surgeon_debug.runners.tensorrt.timing_cache import CacheEntry, Pin
from surgeon_passes.errors import EngineError

_MISS = re.compile(r"errorOnMiss|ERROR_ON_TIMING_CACHE_MISS|(?:timing )?cache miss", re.IGNORECASE)
_REFUSED_ROUTE = re.compile(r"build.?route", re.IGNORECASE)


@dataclasses.dataclass
class BuildFacts:
    """What is known of a build, filled in as it goes on; it is there after a failure too."""

    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    """Time of each step."""
    before: dict[str, CacheEntry] = dataclasses.field(default_factory=dict)
    """The timing cache when the build began, pins included."""
    after: dict[str, CacheEntry] = dataclasses.field(default_factory=dict)
    """The timing cache at the end."""
    ranges: dict[str, profiles.Range] = dataclasses.field(default_factory=dict)
    """Sizes of dynamic inputs."""
    shown: tuple[str, ...] = ()
    """Inner tensors that were marked."""
    pins: list[Pin] = dataclasses.field(default_factory=list)
    """Tactics that were asked for."""
    routes: str = ""
    """All knobs of the compiler, as TensorRT describes them; empty where it has none."""
    route: str = ""
    """The route that was taken."""
    workspace: int = 0
    """Bytes of scratch memory."""
    parser_flags: int = 0
    """Flags of the parser."""
    cache_blob: bytes = b""
    """The timing cache, serialised; empty if there was none."""
    errors: list[str] = dataclasses.field(default_factory=list)
    """What the error recorder holds."""


class Build:
    """A model in a builder, parsed when this is made, to be built once.

    Args:
        trt: The module.
        device: What it is built for.
        path: An ONNX file in binary form.
        options: How it is built.
        shown: Inner tensors that are to be seen; those that the network does not have are left out.
        facts: Filled in on the way.

    Raises:
        EngineError: There is no usable GPU.
        BuildFailure: The parser refuses the model, or an option is not to be had.
    """

    def __init__(
        self,
        trt: Any,
        device: DeviceInfo,
        path: Path,
        options: BuildOptions,
        shown: Sequence[str],
        facts: BuildFacts,
    ) -> None:
        self._trt, self._device, self._path, self._options, self.facts = trt, device, path, options, facts
        self._logger, self._sink = process_logger(trt)
        self._recorder = make_recorder(trt)
        self._builder = make_builder(trt, self._logger)
        # On 11 this is the only mode, and the flag is ignored.
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self._network = self._builder.create_network(flags)
        self._config = self._builder.create_builder_config()
        self._parser = trt.OnnxParser(self._network, self._logger)
        attach(self._recorder, self._builder, self._network)
        self._cache: Any = None
        started = time.perf_counter()
        if has(trt, "OnnxParser.set_builder_config") and not self._parser.set_builder_config(self._config):
            raise EngineError("tensorrt's parser does not take the builder's configuration")
        facts.parser_flags = int(self._parser.flags)
        try:
            parse_model(self._parser, path, self._sink)
        except BuildFailure as error:
            raise explained(error, partition(trt, self._builder, self._logger, flags, path)) from error
        facts.seconds["parse"] = time.perf_counter() - started
        facts.shown = self._show(shown)

    @property
    def network(self) -> Any:
        """The parsed model."""
        return self._network

    def _show(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Mark inner tensors; returns those that were."""
        network = self._network
        if self._options.debug == "unfused" and not network.mark_unfused_tensors_as_debug_tensors():
            raise EngineError("tensorrt does not show its unfused tensors")
        outputs = {network.get_output(i).name for i in range(network.num_outputs)}
        inner = set(wanted) - outputs
        if not inner or self._options.debug == "unfused":
            return ()
        marked = []
        for tensor in _tensors(network):
            if tensor.name not in inner:
                continue
            if self._options.observe == "output":
                network.mark_output(tensor)
            elif not network.mark_debug(tensor):
                raise EngineError(f"tensorrt does not show tensor '{tensor.name}'")
            marked.append(tensor.name)
            inner.discard(tensor.name)
        return tuple(marked)

    def run(self, ranges: profiles.Ranges) -> Any:
        """Build it.

        Args:
            ranges: Sizes of dynamic inputs.

        Returns:
            The plan, which has the buffer interface.

        Raises:
            BuildFailure: There is no engine, or it is not the one that was asked for.
        """
        facts = self.facts
        self._configure()
        facts.ranges = profiles.add_profile(self._builder, self._config, self._network, ranges, self._path.name)
        self._attach_cache()
        started = time.perf_counter()
        plan = self._builder.build_serialized_network(self._network, self._config)
        facts.seconds["build"] = time.perf_counter() - started
        facts.errors = self._recorder.words()
        self._read_cache_back()
        if plan is None:
            raise self._failure()
        self._check_route_log()
        if self._options.uses_keys:
            timing_cache.check_followed(facts.before, facts.after, facts.pins, strict=self._options.strict)
        return plan

    def _configure(self) -> None:
        trt, config, options = self._trt, self._config, self._options
        self.facts.workspace = options.workspace_on(self._device)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self.facts.workspace)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if options.level is not None:
            config.builder_optimization_level = options.level
        if options.timing_iterations is not None:
            config.avg_timing_iterations = options.timing_iterations
        if options.aux_streams is not None:
            config.max_aux_streams = options.aux_streams
        if not options.tf32:
            config.clear_flag(trt.BuilderFlag.TF32)
        if options.uses_keys:
            # A cache that was filled without the first has no keys; with compiled kernels at hand nothing is timed.
            config.set_flag(trt.BuilderFlag.EDITABLE_TIMING_CACHE)
            flag = member(trt, "BuilderFlag", "DISABLE_COMPILATION_CACHE")
            if flag is not None:
                config.set_flag(flag)
        if options.strict:
            config.set_flag(trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
        self._set_route()

    def _set_route(self) -> None:
        route, config = self._options.route, self._config
        if has(self._trt, "IBuilderConfig.all_build_routes"):
            self.facts.routes = str(config.all_build_routes or "")
        if not route:
            return
        if not has(self._trt, "IBuilderConfig.build_route"):
            words = f"TensorRT {version_of(self._trt)} has no build routes"
            hint = f"they exist since {since('IBuilderConfig.build_route')}"
            raise BuildFailure(BuildStatus.ROUTE_REFUSED, words, model=self._path.name, hint=hint)
        text = route_text(route)
        config.build_route = text
        # Python is not told whether it was taken.
        if str(config.build_route) != text:
            words = f"the route '{text}' was not taken"
            words += "".join(f": {line}" for line in self._sink.complaints()[-1:])
            raise BuildFailure(BuildStatus.ROUTE_REFUSED, words, model=self._path.name)
        self.facts.route = text

    def _attach_cache(self) -> None:
        options, facts = self._options, self.facts
        if options.level == 0 or not (options.cache or options.save_cache or options.uses_keys):
            return
        self._cache = timing_cache.attach(self._config, options.cache, ignore_mismatch=options.ignore_mismatch)
        if not options.uses_keys:
            return
        if options.pins is not None:
            facts.pins = timing_cache.read_pins(options.pins)
            timing_cache.apply_pins(self._trt, self._cache, facts.pins)
        facts.before = timing_cache.read_map(self._cache)
        if options.strict and not facts.before:
            name = options.cache.name if options.cache else ""
            hint = "fill it with editable=true"
            raise BuildFailure(BuildStatus.CACHE_REFUSED, f"{name} has no keys", hint=hint)

    def _read_cache_back(self) -> None:
        if self._cache is None:
            return
        cache = self._config.get_timing_cache() or self._cache
        if self._options.uses_keys:
            self.facts.after = timing_cache.read_map(cache)
        blob = cache.serialize()
        self.facts.cache_blob = bytes(blob) if blob is not None else b""

    def _failure(self) -> BuildFailure:
        words = said(self._sink, self._recorder, "the builder made nothing and gave no reason")
        if _MISS.search(" ".join([*self.facts.errors, *self._sink.complaints(worst=1)])):
            return BuildFailure(BuildStatus.CACHE_MISS, words)
        if self.facts.pins:
            return BuildFailure(BuildStatus.PIN_REFUSED, words)
        metadata = self._whose(words)
        if metadata and metadata not in words:
            words += f" ({metadata})"
        return BuildFailure(BuildStatus.BUILD_ERROR, words, model=self._path.name, nodes=onnx_nodes(metadata))

    def _whose(self, words: str) -> str:
        """The metadata of the layer that an error names, which tell its ONNX nodes; the builder knows layers only."""
        best = ""
        metadata = ""
        for i in range(self._network.num_layers):
            layer = self._network.get_layer(i)
            if len(layer.name) > len(best) and layer.name in words:
                best, metadata = layer.name, str(layer.metadata)
        return metadata

    def _check_route_log(self) -> None:
        if not self.facts.route:
            return
        lines = [line for line in self._sink.complaints() if _REFUSED_ROUTE.search(line)]
        if lines:
            raise BuildFailure(BuildStatus.ROUTE_REFUSED, " ".join(lines[0].split()), model=self._path.name)


def make_builder(trt: Any, logger: Any) -> Any:
    """A builder.

    Raises:
        EngineError: There is no GPU that TensorRT can use.
    """
    trt.init_libnvinfer_plugins(logger, "")
    try:
        return trt.Builder(logger)
    except TypeError as error:  # what the binding makes of a null pointer
        raise EngineError(
            "tensorrt is installed and finds no GPU that it can use here", hint="run it where nvidia-smi shows a GPU"
        ) from error


def _tensors(network: Any) -> Sequence[Any]:
    """Every tensor that a layer of the main network computes."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    found = [layer.get_output(i) for layer in layers for i in range(layer.num_outputs)]
    return [tensor for tensor in found if tensor is not None]
