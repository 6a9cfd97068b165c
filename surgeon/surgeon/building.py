"""What ``surgeon build`` does between reading its options and printing its result."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from surgeon.targets import check_targets
from surgeon_debug.in_short import in_short
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.tensorrt.profiles import Range, parse_dims, read_ranges
from surgeon_debug.runners.tensorrt.record import BUILD, beside
from surgeon_debug.stage import staged
from surgeon_passes.errors import BadOptionError, FileError
from surgeon_passes.graph import load
from surgeon_passes.spec import parse_size, quote

_REWRITES = {
    "int8": "quantize the model first, which puts QuantizeLinear and DequantizeLinear into its graph",
    "fp8": "quantize the model first, which puts QuantizeLinear and DequantizeLinear into its graph",
    "fp16": "run surgeon rewrite MODEL -p convert-precision -o OUT first",
    "bf16": "run surgeon rewrite MODEL -p convert-precision:to=bfloat16 -o OUT first",
}


@dataclasses.dataclass(frozen=True)
class Order:
    """The options of ``surgeon build``, as typed; see its help."""

    model: Path
    output: Path
    timing_cache: Path | None
    pin: bool
    workspace: str | None
    level: int | None
    no_tf32: bool
    dims: str
    profile: Path | None
    route: str | None
    record: Path | None
    types: tuple[str, ...]
    timeout: float | None
    memory_cap: str | None
    allow_external: bool


@dataclasses.dataclass(frozen=True)
class Built:
    """An engine and what is known of it."""

    model: Path
    """The model."""
    engine: Path
    """The engine's file."""
    nbytes: int
    """Its size."""
    fresh: bool
    """Whether it was built now; else it was there already, built from the same."""
    pinned: bool
    """Whether every tactic came from the timing cache."""
    document: Mapping[str, Any]
    """The record of the build; see :mod:`surgeon_debug.runners.tensorrt.record`."""


def perform(order: Order) -> Built:
    """Build the engine.

    Raises:
        BadOptionError: Options do not do, or sizes are open.
        SurgeonError: The model cannot be loaded, TensorRT refuses it, or a file cannot be written.
    """
    _check(order)
    model = load(order.model, allow_external=order.allow_external)
    _check_sizes(model, order)
    with (
        tempfile.TemporaryDirectory(prefix="surgeon-") as folder,
        staged(order.model, allow_external=order.allow_external) as path,
    ):
        kept = order.record or Path(folder)
        cap = parse_size(order.memory_cap) if order.memory_cap else None
        text = runner_text(order, kept)
        with (
            in_short(text, "tensorrt"),
            make_engine(text, isolated=True, timeout=order.timeout, memory_cap=cap) as runner,
        ):
            runner.prepare(path, [value.name for value in model.graph.outputs if value.name])
        document = _read(kept / BUILD)
    if "load" not in document.get("seconds", {}):
        raise BadOptionError(
            "an input holds a shape, and nothing says which", where=str(order.model), hint="add --profile FILE.json"
        )
    fresh = "build" in document["seconds"]
    return Built(order.model, order.output, order.output.stat().st_size, fresh, order.pin, document)


def runner_text(order: Order, record: Path) -> str:
    """The text of the runner that builds it."""
    chosen: dict[str, Any] = {
        "engine": order.output.absolute(),
        "record": record.absolute(),
        "workspace": order.workspace,
        "level": order.level,
        "tf32": "false" if order.no_tf32 else None,
        "dims": order.dims.replace(",", ";") or None,
        "profile": order.profile and order.profile.absolute(),
        "route": order.route,
    }
    if order.timing_cache is not None:
        place = order.timing_cache.absolute()
        chosen["editable"] = "true"
        if order.pin or place.is_file():
            chosen["cache"] = place
        if order.pin:
            chosen["strict"] = "true"
        else:
            chosen["save_cache"] = place
    return "tensorrt:" + ",".join(f"{key}={quote(str(value))}" for key, value in chosen.items() if value is not None)


def _check(order: Order) -> None:
    if order.types:
        name = order.types[0]
        raise BadOptionError(
            f"TensorRT computes in the types of the model's graph, and {name} is no flag but a rewrite of it",
            hint=_REWRITES[name],
        )
    if order.pin and order.timing_cache is None:
        raise BadOptionError("--pin has a timing cache decide, and there is none", hint="add --timing-cache FILE")
    if order.pin and order.timing_cache is not None and not order.timing_cache.is_file():
        raise FileError("does not exist", where=str(order.timing_cache), hint="build once without --pin to make it")
    if order.timing_cache is not None and order.timing_cache.absolute().parent.is_dir() is False:
        raise FileError("cannot be written: the folder does not exist", where=str(order.timing_cache))
    read = [order.model, order.profile, order.timing_cache]
    check_targets({"-o": (order.output, b""), "beside -o": (beside(order.output), b"{")}, read)
    if order.timing_cache is not None and not order.pin:
        check_targets({"--timing-cache": (order.timing_cache, b"")}, [order.model, order.profile])


def _check_sizes(model: ir.Model, order: Order) -> None:
    """Refuse now what would be found out after TensorRT has started: sizes that nobody gives."""
    given = read_ranges(order.profile) if order.profile is not None else {}
    _check_profile(model, given, str(order.profile))
    sizes = parse_dims(order.dims)
    open_: dict[str, None] = {}
    names: dict[str, None] = {}
    for value in model.graph.inputs:
        name = value.name or ""
        if name in given or value.is_initializer() or value.shape is None:
            continue
        for dim in value.shape:
            symbol = dim.value if isinstance(dim, ir.SymbolicDim) else None
            if not isinstance(dim, int) and (symbol is None or symbol not in sizes) and "" not in sizes:
                open_[name] = None
                names[str(symbol)] = None
    unknown = [name for name in sizes if name and name not in _symbols(model)]
    if unknown:
        raise BadOptionError(
            f"no input has a dimension called '{unknown[0]}'", hint=f"they are {', '.join(_symbols(model)) or 'fixed'}"
        )
    if not open_:
        return
    first = next(iter(names))
    dims = ", ".join(names) if "None" not in names else "no name"
    hint = "add --profile FILE.json" if first == "None" else f"add --dims {first}=1..4..8, or --profile FILE.json"
    raise BadOptionError(f"the sizes of {', '.join(open_)} are open ({dims})", where=str(order.model), hint=hint)


def _check_profile(model: ir.Model, given: Mapping[str, Range], where: str) -> None:
    """Refuse sizes of what is no input, and two sizes of one dimension."""
    inputs = {value.name or "": value for value in model.graph.inputs}
    unknown = [name for name in given if name not in inputs]
    if unknown:
        raise BadOptionError(f"'{unknown[0]}' is no input", where=where, hint=f"they are {', '.join(inputs)}")
    seen: dict[str, tuple[str, tuple[int, int, int]]] = {}
    for name, span in given.items():
        shape = inputs[name].shape
        if shape is None or len(shape) != len(span.least):  # an input that holds a shape: the sizes are its values
            continue
        for dim, *three in zip(shape, span.least, span.best, span.most, strict=True):
            symbol = dim.value if isinstance(dim, ir.SymbolicDim) else None
            sizes = (three[0], three[1], three[2])
            if symbol and seen.setdefault(symbol, (name, sizes))[1] != sizes:
                other, others = seen[symbol]
                words = f"{_span(others)} for {other} and {_span(sizes)} for {name}"
                raise BadOptionError(f"dimension {symbol} is {words}", where=where)


def _span(sizes: tuple[int, int, int]) -> str:
    return "..".join(map(str, sizes)) if sizes[0] != sizes[2] else str(sizes[0])


def _symbols(model: ir.Model) -> list[str]:
    dims = [dim for value in model.graph.inputs if value.shape is not None for dim in value.shape]
    return list(dict.fromkeys(dim.value for dim in dims if isinstance(dim, ir.SymbolicDim) and dim.value))


def _read(path: Path) -> dict[str, Any]:
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held
