"""TensorRT as a runner: a model is parsed when it is prepared, and built once its sizes are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.endings import EngineFailure
from surgeon_debug.runners.tensorrt import profiles
from surgeon_debug.runners.tensorrt.buffers import open_memory
from surgeon_debug.runners.tensorrt.build_log import process_logger
from surgeon_debug.runners.tensorrt.build_request import BuildOptions, parse_route, parse_workspace
from surgeon_debug.runners.tensorrt.datatypes import as_declared
from surgeon_debug.runners.tensorrt.debug_listener import Shown, Sink
from surgeon_debug.runners.tensorrt.device_memory import CudaError, DeviceMemory
from surgeon_debug.runners.tensorrt.engine_maker import Draft, Made, Places
from surgeon_debug.runners.tensorrt.execute import Execution
from surgeon_debug.runners.tensorrt.layer_map import model_name
from surgeon_debug.runners.tensorrt.layer_times import layer_times
from surgeon_debug.runners.tensorrt.model_source import double_tensors, passed_through
from surgeon_debug.runners.tensorrt.module import load_tensorrt
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import EngineError


class TensorRT:
    """Run a model with TensorRT, 10.12 or later.

    Every engine is strongly typed: it computes in the types that the model states, TF32 apart.

    Args:
        workspace: Scratch memory for tactics, such as ``4GiB``; by default that, or half of a smaller device.
        level: Optimisation level, 0 to 5.
        tf32: Whether float32 products may be rounded to TF32.
        timing_iterations: How often a tactic is timed.
        aux_streams: The most auxiliary streams; 0 for an order that is the same every time.
        dims: Sizes of symbolic dimensions, ``N=4;SEQ=1..64..128``; without them those of the inputs that come.
        profile: Sizes of inputs, from a JSON file.
        cache: A timing cache to load.
        save_cache: Where the timing cache is kept after each build.
        ignore_mismatch: Take a cache of another device.
        editable: Keep a key for every op in the cache.
        pins: A JSON file of tactics by key, written into the loaded cache; an engine without them is refused.
        strict: Refuse to time what the cache does not have.
        route: Knobs of the compiler, ``knob=value;knob=value`` or a JSON file; since 11.1.
        debug: ``unfused`` shows the tensors that fusion has left, without changing it.
        observe: How other inner tensors are shown: ``debug`` or ``output``.
        engine: Where the engine is kept; one that was built from the same is loaded from there.
        record: A folder for what is known of the last build.

    Raises:
        BadOptionError: An option has no such value, or two do not go together.
        EngineError: TensorRT is too old or cannot be loaded, or there is no GPU.
    """

    observes = True

    def __init__(
        self,
        workspace: str = "",
        level: int | None = None,
        tf32: bool = True,
        timing_iterations: int | None = None,
        aux_streams: int | None = None,
        dims: str = "",
        profile: Path | None = None,
        cache: Path | None = None,
        save_cache: Path | None = None,
        ignore_mismatch: bool = False,
        editable: bool = False,
        pins: Path | None = None,
        strict: bool = False,
        route: str = "",
        debug: str = "none",
        observe: str = "debug",
        engine: Path | None = None,
        record: Path | None = None,
    ) -> None:
        self._options = BuildOptions(
            parse_workspace(workspace),
            level,
            tf32,
            timing_iterations,
            aux_streams,
            cache,
            save_cache,
            ignore_mismatch,
            editable,
            pins,
            strict,
            parse_route(route),
            debug,
            observe,
        )
        self._options.check()
        self._dims = profiles.parse_dims(dims)
        self._given = profiles.read_ranges(profile) if profile is not None else {}
        self._places = Places(engine, record)
        self._trt = load_tensorrt()
        self._memory: DeviceMemory = open_memory()
        self._device = self._memory.device_info()
        self._broken: CudaError | None = None
        self.listen: Sink | None = None
        """What is done with every debug tensor, besides keeping those that are wanted."""
        self._forget()

    def _forget(self) -> None:
        self._model: Path | None = None
        self._wanted: list[str] = []
        self._keeps: frozenset[str] = frozenset()
        self._doubles: frozenset[str] = frozenset()
        self._passed: frozenset[str] = frozenset()
        self._kept: dict[str, Value] = {}
        self._draft: Draft | None = None
        self._dynamic: dict[str, bool] = {}
        self._fixed: dict[str, profiles.Range] = {}
        self._ranges: dict[str, profiles.Range] = {}
        self._made: Made | None = None
        self._execution: Execution | None = None
        self._others: list[Execution] = []

    @property
    def precision(self) -> str:
        """TF32, or float32 if that is off: where a model says float64, too."""
        return "tf32" if self._options.tf32 else "float32"

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Parse, and build if no sizes are open; else that waits for the first inputs."""
        self._usable()
        self.close()
        self._model, self._wanted = model_path, list(dict.fromkeys(outputs))
        self._doubles, self._passed = double_tensors(model_path), passed_through(model_path)
        draft = self._parse()
        self._dynamic = draft.dynamic
        known = {**draft.ranges_from(self._dims), **self._given}
        self._fixed = {name: known[name] for name in self._dynamic if name in known}
        self._ranges = dict(self._fixed)
        if len(self._fixed) == len(self._dynamic):
            self._make()

    def _usable(self) -> None:
        if self._broken is not None:
            what = f"tensorrt cannot go on in this process: {self._broken.what}"
            raise EngineFailure(what, ending=self._broken.ending)

    def _parse(self) -> Draft:
        assert self._model is not None
        self._draft = Draft(self._trt, self._device, self._options, self._places, self._model, self._wanted)
        return self._draft

    def _make(self) -> None:
        """Have an engine for the present ranges, ready to run."""
        draft = self._draft or self._parse()
        self._draft = None
        self._made = draft.make(self._ranges)
        self._execution = self._execute(self._made)
        self._keeps = frozenset(self._wanted) - {port.name for port in self._execution.ports}

    def _execute(self, made: Made) -> Execution:
        """A context of its own around the engine."""
        unfused = self._options.debug == "unfused"
        sink = self._take if made.listens else None
        log = process_logger(self._trt)[1]
        return Execution(self._trt, made.engine, self._memory, sink=sink, unfused=unfused, log=log)

    def _take(self, shown: Shown) -> None:
        """Keep what is wanted of the tensors that the engine shows; pass all of them on."""
        if self.listen is not None:
            self.listen(shown)
        name = model_name(shown.name, self._keeps)
        if name and (name == shown.name or name not in self._kept):
            self._kept[name] = shown.value

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once; inputs of a size that the engine was not built for have another one built first."""
        execution = self._fitting(feeds)
        self._kept = {}
        try:
            found = execution.run(feeds)
        except CudaError as error:
            self._note(error)
            raise
        found.update(self._kept)
        found.update((name, feeds[name]) for name in self._passed if name in feeds)
        self._kept = {}
        return {name: as_declared(found[name], name in self._doubles) for name in self._wanted if name in found}

    def _note(self, error: CudaError) -> None:
        if error.sticks:
            self._broken = error

    def _fitting(self, feeds: Feeds) -> Execution:
        """An engine that these inputs fit, ready to run."""
        self._usable()
        if self._model is None:
            raise EngineError("tensorrt was asked to run before a model was prepared")
        ranges = profiles.fitted(self._ranges, profiles.sizes_of(self._dynamic, feeds), self._dynamic, self._fixed)
        if self._execution is None or ranges != self._ranges:
            self._drop_engine()
            self._ranges = ranges
            self._make()
        assert self._execution is not None
        return self._execution

    def repeater(self, feeds: Feeds) -> Callable[[], None]:
        """A function that runs once, with inputs that are on the device already and outputs that stay there.

        Each has a context and a stream of its own; several may be in use at the same time, each in one thread.
        """
        self._fitting(feeds)
        assert self._made is not None
        execution = self._execute(self._made)
        self._others.append(execution)
        execution.load(feeds)

        def again() -> None:
            execution.launch()
            execution.finish()

        return again

    def layer_times(self, feeds: Feeds, runs: int) -> dict[str, float]:
        """Mean seconds of each layer of the engine over some runs, in the engine's order."""
        self._fitting(feeds)
        assert self._made is not None
        execution = self._execute(self._made)
        self._others.append(execution)
        return layer_times(self._trt, execution, feeds, runs)

    @property
    def document(self) -> Any:
        """What is known of the engine; None before it is made."""
        return None if self._made is None else self._made.document

    def close(self) -> None:
        """Drop the engine and its memory."""
        self._drop_engine()
        if self._draft is not None:
            self._draft.close()
        self._forget()

    def _drop_engine(self) -> None:
        # What points to something goes before it.
        for execution in (*self._others, self._execution):
            if execution is not None:
                execution.close()
        self._others.clear()
        self._execution = None
        self._made = None
