"""Engines built by the runner ``tensorrt``, one process each, with all that the runner records of them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.find.engine_builds import Builder, BuildRecord, BuildRefused, EngineLayer, Knob, Wish
from surgeon_debug.find.signature import of_error
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_debug.runners.tensorrt.failures import BuildStatus, cache_not_followed, plain_reason
from surgeon_debug.runners.tensorrt.record import BUILD, LOG, read_beside, read_log, read_tables
from surgeon_debug.runners.tensorrt.tactic_log import TacticLog
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import BadOptionError, EngineError, FileError
from surgeon_passes.spec import quote

_ALLOWED = re.compile(r"\[(.*)\]")
SIZES = ("dims", "profile")
"""Options of the runner that say the sizes of dynamic inputs."""
_NEEDED = ("record", "cache", "save_cache", "pins", "strict", "editable", "engine")


@dataclasses.dataclass(frozen=True)
class TensorrtBuilder:
    """Makes :class:`TensorrtBuilds`; see :class:`surgeon_debug.find.engine_builds.Builder`.

    Raises:
        BadOptionError: The runner is not ``tensorrt``, or its text says what the search decides.
    """

    target: str
    """The runner's text."""
    model: Path
    outputs: tuple[str, ...]
    """The model's outputs."""
    sizes: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...]
    """Smallest, best and largest sizes of the inputs that have open ones."""
    folder: Path
    """Where records and caches are put."""
    first: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    """Inputs of one sample: an engine whose sizes are open still is built when it is first run."""
    timeout: float | None = None
    memory_cap: int | None = None
    isolated: bool = True
    """Whether each engine has a process of its own; without one, an engine that crashes ends the search."""

    def __post_init__(self) -> None:
        runner, _ = parse_runner(self.target)
        if runner.name != "tensorrt" or runner.file:
            raise BadOptionError(
                f"'{self.target}' is not TensorRT, and only its tactics and fusions can be searched",
                hint="write --target tensorrt, or tensorrt:KEY=VALUE,...",
            )
        given = [key for key in _NEEDED if key in runner.options]
        if given:
            raise BadOptionError(
                f"the search itself decides on {given[0]}", hint=f"leave {given[0]}= out of the runner"
            )

    @property
    def label(self) -> str:
        """The runner's text."""
        return self.target

    def make(self) -> TensorrtBuilds:
        """Begin to build."""
        return TensorrtBuilds(self)


class TensorrtBuilds:
    """One engine after the other; see :class:`surgeon_debug.find.engine_builds.Builds`.

    Args:
        builder: What is built.
    """

    def __init__(self, builder: TensorrtBuilder) -> None:
        self._builder = builder
        self._engine: Engine | None = None

    @property
    def precision(self) -> str | None:
        """What the runner says."""
        return self._engine.precision if self._engine is not None else None

    def build(self, wish: Wish) -> BuildRecord:
        """Build an engine; see :meth:`surgeon_debug.find.engine_builds.Builds.build`."""
        self.close()
        self._builder.folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="build-", dir=self._builder.folder))
        text = self._text(wish, folder)
        builder = self._builder
        self._engine = make_engine(
            text, isolated=builder.isolated, timeout=builder.timeout, memory_cap=builder.memory_cap
        )
        try:
            self._engine.ready()
            self._engine.prepare(builder.model, (*builder.outputs, *wish.shown))
            if not (folder / "record" / BUILD).is_file():
                self._engine.run(builder.first)
        except EngineFailure as error:
            # What fails when it is run for the first time is an engine all the same.
            if _status(folder) != BuildStatus.OK.value:
                raise self._refused(error, folder) from error
        return self._read(folder)

    def _refused(self, error: EngineFailure, folder: Path) -> BuildRefused:
        words = str(self._plainly(error))
        missed = cache_not_followed(words) and BuildStatus.CACHE_MISS.value in words
        reason = words if error.ending is Ending.REFUSED else f"the build {_ENDED[error.ending]}: {words}"
        plain = plain_reason(error.what)
        signature = of_error(EngineFailure(plain, ending=error.ending)) if plain else None
        log = read_log(folder / "record" / LOG)
        known = None
        if signature is not None:
            document = _document(folder)
            document = {**document, "tables": [table.to_json() for table in log.tables]}
            cache = folder / "timing.cache"
            known = record_of(document, str(cache) if cache.is_file() else "")
        shutil.rmtree(folder / "record", ignore_errors=True)
        last = _last_words(log) if error.ending is not Ending.REFUSED else ""
        return BuildRefused(reason, missed=missed, signature=signature, record=known, last=last)

    def _text(self, wish: Wish, folder: Path) -> str:
        """The runner's text for one build."""
        runner, confines = parse_runner(self._builder.target)
        options = {**runner.options, **{name: quote(value) for name, value in wish.options}}
        options["record"] = quote(str(folder / "record"))
        if wish.cache:
            options["cache"] = quote(wish.cache)
        if wish.cache or "editable" in options:
            options["save_cache"] = quote(str(folder / "timing.cache"))
        if wish.pins is not None:
            (folder / "pins.json").write_text(json.dumps(dict(wish.pins)))
            options["pins"] = quote(str(folder / "pins.json"))
        if wish.strict:
            options["strict"] = "true"
        if self._builder.sizes and not any(name in options for name in SIZES):
            (folder / "profile.json").write_text(json.dumps(ranges_of(self._builder)))
            options["profile"] = quote(str(folder / "profile.json"))
        if confines.python is not None:
            options["python"] = quote(str(confines.python))
        for name, value in (("timeout", confines.timeout), ("memory_cap", confines.memory_cap)):
            if value is not None:
                options[name] = str(value)
        return "tensorrt:" + ",".join(f"{name}={value}" for name, value in options.items())

    def _read(self, folder: Path) -> BuildRecord:
        try:
            document = json.loads((folder / "record" / BUILD).read_text())
        except (OSError, ValueError) as error:
            raise EngineError(
                f"the record of a build cannot be read: {error}", hint="see whether the disk is full"
            ) from error
        cache = folder / "timing.cache"
        found = record_of(document, str(cache) if cache.is_file() else "")
        shutil.rmtree(folder / "record", ignore_errors=True)  # logs of hundreds of builds fill a disk
        return found

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Run the engine; see :meth:`surgeon_debug.find.engine_builds.Builds.run`."""
        assert self._engine is not None, "there is no engine to run"
        try:
            return self._engine.run(feeds)
        except EngineFailure as error:
            raise self._plainly(error) from error

    def _plainly(self, error: EngineFailure) -> EngineFailure:
        """A failure of the runner as the user knows it, without the options that the search gave it."""
        label = self._engine.label if self._engine is not None else ""
        what = error.what.replace(label, self._builder.target) if label else error.what
        return EngineFailure(what, ending=error.ending, where=error.where, hint=error.hint)

    def close(self) -> None:
        """Let go of the engine."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def abort(self) -> None:
        """End what is being done, from another thread."""
        engine = self._engine
        if engine is not None:
            engine.abort()


_ENDED = {
    Ending.CRASHED: "crashed",
    Ending.EXITED: "left",
    Ending.HUNG: "hung",
    Ending.OUT_OF_MEMORY: "ran out of memory",
}


def _document(folder: Path) -> dict[str, Any]:
    """The record of a build that failed; empty if there is none."""
    try:
        found = json.loads((folder / "record" / BUILD).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _status(folder: Path) -> str:
    """What the record says became of a build; empty if there is none."""
    return str(_document(folder).get("status", ""))


def _last_words(log: TacticLog) -> str:
    """What a build was doing when its process ended, as far as its log tells."""
    if not log.tables:
        return ""
    last = log.tables[-1]
    nodes = f" (nodes {', '.join(last.nodes)})" if last.nodes else ""
    if last.chosen:
        row = last.row(last.chosen)
        kernel = f" {row.kernel}" if row is not None and row.kernel else ""
        return f"the last op in its log is '{last.op}'{nodes}, which had got tactic {last.chosen}{kernel}"
    tried = f" with tactic {last.rows[-1].hash} {last.rows[-1].kernel}" if last.rows else ""
    return f"its log ends while op '{last.op}'{nodes} was being timed{tried.rstrip()}"


def record_of(document: Mapping[str, Any], cache: str = "") -> BuildRecord:
    """What the runner's record of a build says.

    Args:
        document: Its ``build.json``, or what lies beside a timing cache.
        cache: The file of the timing cache; empty if there is none.
    """
    versions = document.get("versions") or {}
    layers = (
        EngineLayer(one["name"], one["kind"], tuple(one["nodes"]), one["kernel"], one["tactic"])
        for one in document.get("layers") or ()
    )
    return BuildRecord(
        dict(document.get("tactics") or {}),
        tuple(read_tables(document)),
        tuple(layers),
        tuple(_knobs(document.get("routes"))),
        cache,
        str(versions.get("tensorrt", "")),
    )


def _knobs(routes: Any) -> Iterator[Knob]:
    """The knobs that TensorRT describes, as far as their description makes sense."""
    listed = routes.get("tuner_options", ()) if isinstance(routes, dict) else ()
    for item in listed:
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            name = str(item["option"]).lstrip("-")
            allowed = item["allowed_values"]
            if isinstance(allowed, str):
                found = _ALLOWED.search(allowed)
                allowed = (found[1] if found else allowed).split("|")
            value = str(item.get("default_value", ""))
            yield Knob(name, value, tuple(str(v) for v in allowed if str(v) != value), str(item.get("help", "")))


def read_known(path: Path) -> tuple[BuildRecord | None, str, str]:
    """What is known of a build by a file or folder of a user's.

    Args:
        path: The folder of a record, or a timing cache, beside which there may be what its keys stand for.

    Returns:
        What was recorded, None if nothing was; the timing cache, empty if it is a record; a digest of it.

    Raises:
        FileError: It cannot be read, or holds no record.
    """
    try:
        if path.is_dir():
            return record_of(json.loads((path / BUILD).read_text(encoding="utf-8"))), "", ""
        digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error
    except ValueError as error:
        raise FileError(f"holds no record of a build: {error}", where=str(path)) from error
    document = read_beside(path)
    return (record_of(document, str(path)) if document.get("tactics") else None), str(path.absolute()), digest


def ranges_of(builder: TensorrtBuilder) -> dict[str, dict[str, list[int]]]:
    """Sizes of dynamic inputs as the runner reads them from a file, by input."""
    names = ("min", "opt", "max")
    return {name: dict(zip(names, map(list, sizes), strict=True)) for name, sizes in builder.sizes}


RIGHT = "give the inputs with which it failed with --feeds, or stricter limits with --rtol and --atol"
"""What to do where a build is right."""


def other_sizes(builder: Builder) -> str:
    """What to add to an advice where an engine was seen with one size of an input that may have several."""
    sizes = getattr(builder, "sizes", ())
    if not sizes or any(least != most for _, (least, _, most) in sizes):
        return ""
    names = ", ".join(name for name, _ in sizes[:3])
    return (
        f"; it was run with one size of {names} only: give samples of several with --feeds, or --dims N=1..4..8; "
        "sizes of another profile are given in the same way, because engines have one profile here"
    )


def sizes_of(feeds: Sequence[Mapping[str, Value]], dynamic: Sequence[str]) -> tuple[Any, ...]:
    """Smallest, best and largest sizes of some inputs over all samples; the first sample's are best.

    Args:
        feeds: Inputs, one mapping a sample.
        dynamic: Inputs with open sizes.
    """
    found = []
    for name in dynamic:
        shapes = [tuple(int(d) for d in getattr(sample[name], "shape", ())) for sample in feeds if name in sample]
        if shapes and len({len(shape) for shape in shapes}) == 1:
            least = tuple(map(min, zip(*shapes, strict=True)))
            most = tuple(map(max, zip(*shapes, strict=True)))
            found.append((name, (least, shapes[0], most)))
    return tuple(found)
