"""Build and run TensorRT in the ways of the ladder: as it is, watched, marked, with outputs; a process for each."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from surgeon_debug.golden import GoldenReader
from surgeon_debug.in_short import in_short
from surgeon_debug.ladder import Step
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.runners.tensorrt import watch
from surgeon_debug.runners.tensorrt.inspector import info_from_json
from surgeon_debug.runners.tensorrt.layer_map import LayerMap
from surgeon_debug.runners.tensorrt.record import BUILD
from surgeon_debug.runners.tensorrt.watch_list import WatchList
from surgeon_debug.seen_tensor import Look, from_text, look_at
from surgeon_debug.values import Value
from surgeon_debug.whole_run import run_whole
from surgeon_passes.errors import BadOptionError
from surgeon_passes.spec import quote, split_spec, unquote

WATCH = Path(watch.__file__)
"""The file of the runner that watches."""

_CONFINES = ("python", "timeout", "memory_cap", "memory-cap")
_OWN = ("engine", "save_cache", "record", "debug", "observe", "pins", "strict", "cache")  # of the whole engine alone

Values = Mapping[str, Value]


@dataclasses.dataclass(frozen=True)
class Ran:
    """What came out of building and running once."""

    outputs: list[dict[str, Value]]
    """The model's outputs; one mapping a run."""
    looks: tuple[Look, ...]
    """At tensors inside."""
    layers: LayerMap
    """The engine's layers."""


class Runs:
    """The target in all ways.

    Args:
        target: The text of the runner ``tensorrt``.
        model: The model's file.
        outputs: Its outputs.
        golden: The reference's values and the inputs, a golden file.
        listed: The model's tensors.
        folder: Where files may be written.
        made_up: The inputs are nobody's; a failure then says so.
        timeout: Seconds for one build or one run.
        memory_cap: Bytes of memory for each process.

    Raises:
        BadOptionError: The target is another runner.
    """

    def __init__(
        self,
        target: str,
        model: Path,
        outputs: Sequence[str],
        golden: Path,
        listed: WatchList,
        folder: Path,
        *,
        made_up: bool,
        timeout: float | None,
        memory_cap: int | None,
    ) -> None:
        self._target = target
        name, self._options = split_spec(target)
        if name != "tensorrt":
            raise BadOptionError(f"{target} cannot be looked into without disturbing it", hint="only tensorrt can")
        self._model, self._names, self._golden_path, self._folder = model, list(outputs), golden, folder
        self._made_up, self._timeout, self._memory_cap = made_up, timeout, memory_cap
        self._golden = GoldenReader(golden)
        self._listed = listed
        self._list_path = folder / "tensors.json"
        listed.write(self._list_path)
        self._cache = Path(unquote(self._options["save_cache"])) if "save_cache" in self._options else folder / "cache"
        self._profile = self._sizes()
        self.precision: str | None = None
        """What the engine computes in, if that is coarser than the model."""
        self.rounds = 1
        """How often every step runs all samples."""

    def close(self) -> None:
        """Close the file."""
        self._golden.close()

    def _sizes(self) -> str:
        """An option that gives inputs whose sizes differ between samples one engine for all of them."""
        shapes: dict[str, list[tuple[int, ...]]] = {}
        for sample in range(self._golden.samples):
            for name, value in self._golden.feeds(sample).items():
                shapes.setdefault(name, []).append(tuple(getattr(value, "shape", ())))
        ranges = {
            name: {"min": list(map(min, *found)), "opt": list(found[0]), "max": list(map(max, *found))}
            for name, found in shapes.items()
            if len(set(found)) > 1 and len(set(map(len, found))) == 1
        }
        if not ranges or not {"dims", "profile"}.isdisjoint(self._options):
            return ""
        path = self._folder / "profile.json"
        path.write_text(json.dumps(ranges), encoding="utf-8")
        return quote(str(path))

    def text(self, step: Step) -> str:
        """The text of the runner for a step."""
        options = {key: value for key, value in self._options.items() if key not in _CONFINES}
        record = quote(str(self._folder / step.name.lower()))
        if step is Step.WHOLE:
            options = {"save_cache": quote(str(self._cache)), "record": record, **options}
        else:
            keys = {"editable", "pins", "strict"} & options.keys()
            cache = options.get("cache")
            options = {key: value for key, value in options.items() if key not in _OWN}
            # What is computed together as before shall be computed by the same kernels as before.
            if self._cache.exists():
                cache = quote(str(self._cache))
            options.update({"cache": cache} if cache else {})
            options.update({"editable": "true"} if keys else {})
            options.update({} if step is Step.PIECE else {"record": record})
        if self._profile and step is not Step.PIECE:
            options["profile"] = self._profile
        options |= {Step.UNFUSED: {"debug": "unfused"}, Step.MARKED: {"observe": "debug"}}.get(step, {})
        options |= {Step.OUTPUTS: {"observe": "output"}}.get(step, {})
        said = ",".join(f"{key}={value}" for key, value in options.items())
        return f"tensorrt:{said}" if said else "tensorrt"

    def record(self, step: Step) -> Path:
        """The folder with what is known of a step's engine."""
        given = self._options.get("record") if step is Step.WHOLE else None
        return Path(unquote(given)) if given else self._folder / step.name.lower()

    def make(self, step: Step, shown: Sequence[str] = ()) -> Ran:
        """Build and run the whole model in one of the ways.

        Args:
            step: Which.
            shown: Tensors inside that are marked or made outputs.

        Raises:
            EngineError: It cannot be built, or fails.
        """
        watched = step in (Step.UNFUSED, Step.MARKED)
        found = self._run(step, [*self._names, *shown, *([watch.SEEN] if watched else [])], watched)
        looks: list[Look] = []
        for run, values in enumerate(found):
            if watched:
                looks += from_text(str(values.pop(watch.SEEN)[0]))
            met = {look.name for look in looks if look.run == run}
            order = [name for name in (*self._listed.tensors, *self._names) if name in values and name not in met]
            sample = run % self._golden.samples
            # Outputs are not among what is watched, unless the engine shows them as well.
            looks += [
                dataclasses.replace(look_at(name, values[name], self._golden.get(sample, name)), run=run)
                for name in dict.fromkeys(order)
                if self._golden.has(sample, name)
            ]
        outputs = [{name: values[name] for name in self._names if name in values} for values in found]
        return Ran(outputs, tuple(looks), self._map(step))

    def _run(self, step: Step, wanted: Sequence[str], watched: bool) -> list[dict[str, Value]]:
        text = self._watching(self.text(step)) if watched else self._confined(self.text(step))
        samples = [self._golden.feeds(sample) for sample in range(self._golden.samples)]
        with self._engine(text) as engine:
            found = run_whole(engine, self._model, wanted, samples * self.rounds, made_up=self._made_up)
            if step is Step.WHOLE:
                found.append(engine.run(samples[0]))
        return found

    def piece(self, path: Path, wanted: Sequence[str], feeds: Sequence[Values]) -> list[dict[str, Value]]:
        """Build and run a piece of the model.

        Raises:
            EngineError: It cannot be built, or fails.
        """
        with self._engine(self._confined(self.text(Step.PIECE))) as engine:
            engine.prepare(path, wanted)
            return [engine.run(sample) for sample in feeds for _ in range(self.rounds)]

    def _watching(self, runner: str) -> str:
        """The text of the runner that watches another."""
        options = {"runner": runner, "golden": str(self._golden_path), "tensors": str(self._list_path)}
        said = ",".join(f"{key}={quote(value)}" for key, value in options.items())
        return self._confined(f"{WATCH}:Watch:{said}")

    def _confined(self, text: str) -> str:
        said = ",".join(f"{key}={value}" for key, value in self._options.items() if key in _CONFINES)
        return text if not said else f"{text},{said}" if ":" in text else f"{text}:{said}"

    @contextlib.contextmanager
    def _engine(self, text: str) -> Iterator[Engine]:
        engine = make_engine(text, isolated=True, timeout=self._timeout, memory_cap=self._memory_cap)
        # Failures shall not call it by files that nobody has asked for.
        with in_short(text, self._target), engine:
            engine.ready()
            self.precision = engine.precision
            yield engine

    def _map(self, step: Step) -> LayerMap:
        try:
            layers = json.loads((self.record(step) / BUILD).read_text(encoding="utf-8")).get("layers", ())
        except (OSError, ValueError):
            layers = ()
        return LayerMap(info_from_json(layers), self._listed.tensors)
