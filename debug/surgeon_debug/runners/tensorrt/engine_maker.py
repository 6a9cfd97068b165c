"""From a model to an engine in this process: parsed, built or loaded, inspected, recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.runners.exposure import interface_of
from surgeon_debug.runners.tensorrt import profiles, record
from surgeon_debug.runners.tensorrt.build import Build, BuildFacts
from surgeon_debug.runners.tensorrt.build_log import process_logger
from surgeon_debug.runners.tensorrt.build_request import BuildOptions, build_address
from surgeon_debug.runners.tensorrt.device_memory import DeviceInfo
from surgeon_debug.runners.tensorrt.engine_file import load_engine
from surgeon_debug.runners.tensorrt.engine_ports import engine_ports
from surgeon_debug.runners.tensorrt.failures import BuildFailure, BuildStatus
from surgeon_debug.runners.tensorrt.inspector import inspect_engine
from surgeon_debug.runners.tensorrt.module import version_of
from surgeon_debug.runners.tensorrt.tactic_check import check_kernels
from surgeon_passes.errors import EngineError


@dataclasses.dataclass(frozen=True)
class Made:
    """An engine."""

    engine: Any
    """The engine."""
    runtime: Any
    """What it needs as long as it lives."""
    listens: bool
    """Whether it shows tensors to a listener."""
    document: Mapping[str, Any]
    """What is known of it; see :mod:`surgeon_debug.runners.tensorrt.record`."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where what is made is kept."""

    engine: Path | None = None
    """The engine; one that was built from the same is taken from there."""
    record: Path | None = None
    """A folder for what is known of the last build."""


class Draft:
    """A model, parsed when this is made, to be made an engine of once its sizes are known.

    Args:
        trt: The module.
        device: What engines are built for.
        options: How they are built.
        places: What is kept.
        model: An ONNX file in binary form.
        wanted: Tensors to be seen.

    Raises:
        EngineError: The model or an option is refused.
    """

    def __init__(
        self,
        trt: Any,
        device: DeviceInfo,
        options: BuildOptions,
        places: Places,
        model: Path,
        wanted: Sequence[str],
    ) -> None:
        self._trt, self._device, self._options, self._places, self._model = trt, device, options, places, model
        self._sink = process_logger(trt)[1]
        self._stack = contextlib.ExitStack()
        self._facts = BuildFacts()
        self._log = self._begin_log()
        with self._recorded():
            self._build = Build(trt, device, model, options, wanted, self._facts)
        self.dynamic = {
            name: bool(t.is_shape_tensor) for name, t in profiles.dynamic_inputs(self._build.network).items()
        }
        """Inputs whose sizes are open, and whether it is their values that are."""

    def _begin_log(self) -> Path | None:
        """Where the log goes; it is needed where tactics are recorded, and where it was asked for."""
        path = None
        if self._places.record is not None:
            path = record.make_folder(self._places.record) / record.LOG
        elif self._options.uses_keys:
            folder = tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True)
            path = Path(self._stack.enter_context(folder)) / record.LOG
        self._sink.begin(path)
        self._stack.callback(self._sink.end)
        return path

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        """Keep what is known of a build that fails."""
        try:
            yield
        except EngineError as error:
            status = error.status if isinstance(error, BuildFailure) else BuildStatus.BUILD_ERROR
            document = self._keep(record.Outcome(status, str(error)), "")
            if self._places.record is not None and not self._facts.pins:
                self._save_cache(document)
            self.close()
            raise

    def ranges_from(self, dims: Mapping[str, tuple[int, int, int]]) -> dict[str, profiles.Range]:
        """Ranges of the inputs whose open dimensions all have sizes."""
        return profiles.ranges_from_dims(self._build.network, dims)

    def make(self, ranges: profiles.Ranges) -> Made:
        """Build the engine, or load it if there is one that was built from the same; this draft is spent then.

        Args:
            ranges: Sizes of dynamic inputs.

        Raises:
            BuildFailure: There is no engine, or not the one that was asked for.
            EngineError: It cannot be loaded.
            FileError: What is to be kept cannot be written.
        """
        place = self._places.engine
        with self._stack:
            address = "" if place is None else self._address(ranges)
            with self._recorded():
                known = place is not None and record.address_of(place) == address
                plan = place.read_bytes() if place is not None and known else self._plan(ranges)
                engine, runtime, seconds = load_engine(self._trt, plan, self._sink)
                self._facts.seconds["load"] = seconds
                inspected = inspect_engine(self._trt, engine)
                check_kernels(inspected, self._facts.pins)
            document = self._keep(record.Outcome(BuildStatus.OK), inspected, engine_ports(self._trt, engine))
            if place is not None and not known:
                record.write_engine(place, plan, document, address)
            self._save_cache(document)
        listens = self._options.debug != "none" or (bool(self._facts.shown) and self._options.observe == "debug")
        return Made(engine, runtime, listens, document)

    def _plan(self, ranges: profiles.Ranges) -> Any:
        """Build; what is known then is recorded at once, because the process may end when the plan is loaded."""
        plan = self._build.run(ranges)
        if self._places.record is not None:
            document = self._described(record.Outcome(BuildStatus.NOT_LOADED))
            record.write_record(self._places.record, document, "")
            if not self._facts.pins:
                self._save_cache(document)
        return plan

    def _save_cache(self, document: Mapping[str, Any]) -> None:
        if self._options.save_cache is not None and self._facts.cache_blob:
            record.write_cache(self._options.save_cache, self._facts.cache_blob, document)

    def _described(self, outcome: record.Outcome) -> dict[str, Any]:
        return record.describe_build(self._trt, self._device, self._model, self._options, self._facts, outcome)

    def _keep(self, outcome: record.Outcome, inspected: str, ports: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The document of the build, written where it was asked for."""
        self._sink.end()
        document = self._described(outcome)
        if self._log is not None:
            document = record.with_log(document, record.read_log(self._log))
        document["ports"] = list(ports)
        if inspected:
            document = record.with_layers(document, inspected)
        if self._places.record is not None:
            record.write_record(self._places.record, document, inspected)
        return document

    def _address(self, ranges: profiles.Ranges) -> str:
        weights = [self._model.parent / name for name in interface_of(self._model).locations]
        return build_address(
            self._model,
            weights,
            self._options,
            {name: ranges[name] for name in self.dynamic if name in ranges},
            shown=self._facts.shown,
            version=version_of(self._trt),
            device=self._device,
        )

    def close(self) -> None:
        """Close the log; what was written to a temporary place is gone then."""
        self._stack.close()
