"""Questions about engines, their log and their compiler that only a device can answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from surgeon_debug.runners.tensorrt.buffers import open_memory
from surgeon_debug.runners.tensorrt.build import make_builder
from surgeon_debug.runners.tensorrt.build_log import LogSink
from surgeon_debug.runners.tensorrt.debug_listener import Shown, make_listener
from surgeon_debug.runners.tensorrt.execute import Execution
from surgeon_debug.runners.tensorrt.inspector import EngineInfo, inspect_engine, parse_engine
from surgeon_debug.runners.tensorrt.module import has, load_tensorrt, since, version_of
from surgeon_debug.runners.tensorrt.self_check.answer import Found, Reply
from surgeon_debug.runners.tensorrt.self_check.bare_build import bare_build, ear, layers_of, loaded
from surgeon_debug.runners.tensorrt.self_check.small_models import ATTENTION, CONV, MLP, PLUGIN
from surgeon_passes.errors import EngineError

_TOLD = {
    CONV: ("conv1", "conv2", "classify"),
    ATTENTION: ("product_q", "scores", "attend", "mix", "product_out"),
    PLUGIN: ("align",),
}
"""Nodes that some layer has to tell of, by model."""
_THREADS = 4
_KNOBS = 40  # knobs that are turned, each a build


def inspector_is_understood(models: Mapping[str, Path]) -> Found:
    """Question 2."""
    trt = load_tensorrt()
    details: dict[str, Any] = {}
    words, lost = [], 0
    for name, told in _TOLD.items():
        try:
            info, text = layers_of(trt, bare_build(trt, models[name]))
        except EngineError as error:
            details[name] = {"error": str(error)}
            words.append(f"{name}: {error}")
            lost += name != PLUGIN  # without the plugin's library its engine says nothing about the inspector
            continue
        missing = sorted(set(told) - {node for layer in info.layers for node in layer.nodes})
        keys = sorted({key for layer in info.layers for key in layer.rest})
        kinds = sorted({layer.kind for layer in info.layers if layer.kind})
        details[name] = {"inspector": text, "missing": missing, "kinds": kinds, "further_keys": keys}
        lost += bool(missing) or info.names_only
        words.append(f"{name}: {', '.join(kinds)}" + (f" and no word of {', '.join(missing)}" if missing else ""))
    return (Reply.NO if lost else Reply.YES), "; ".join(words), details


def all_covers_unfused(models: Mapping[str, Path]) -> Found:
    """Question 3, and whether unfused tensors appear inside regions of Myelin, and in which format."""
    trt = load_tensorrt()
    details: dict[str, Any] = {}
    totals = {"all": 0, "unfused": 0, "both": 0}
    inside = linear = 0
    for name in (MLP, ATTENTION, CONV):
        built = bare_build(trt, models[name], network=lambda network: network.mark_unfused_tensors_as_debug_tensors())
        engine, runtime = loaded(trt, built)
        info = parse_engine(inspect_engine(trt, engine))
        shown = {state: _shown(trt, engine, state) for state in totals}
        del engine, runtime  # in this order
        writers = {tensor.name: (layer, tensor) for layer in info.layers for tensor in layer.outputs}
        told = [writers[tensor] for tensor in shown["both"] if tensor in writers]
        inside += sum("myl" in f"{layer.name} {layer.kind}".lower() for layer, _ in told)
        linear += sum(tensor.linear is True for _, tensor in told)
        totals = {state: totals[state] + len(shown[state]) for state in totals}
        details[name] = {"shown": shown, "kinds": sorted({tensor.kind for _, tensor in told})}
    words = (
        f"{totals['all']} tensors came with all on, {totals['unfused']} with unfused on, {totals['both']} with both; "
        f"{inside} of them inside Myelin, {linear} said to be linear"
    )
    if not totals["unfused"] and not totals["both"]:
        return Reply.UNKNOWN, words, details
    return (Reply.YES if totals["all"] else Reply.NO), words, details


def _shown(trt: Any, engine: Any, state: str) -> list[str]:
    """Names of the tensors that an engine shows in one state."""
    memory = open_memory()
    execution = Execution(trt, engine, memory, sink=None, unfused=False, log=LogSink())
    names: list[str] = []

    def keep(shown: Shown) -> None:
        names.append(shown.name)

    listener = make_listener(trt, memory, keep)
    context = execution.context
    if not context.set_debug_listener(listener):
        raise EngineError("tensorrt does not take a debug listener")
    if state in ("all", "both"):
        context.set_all_tensors_debug_state(True)
    if state in ("unfused", "both"):
        context.unfused_tensors_debug_state = True
    listener.begin()
    execution.run(_feeds(trt, engine))
    execution.close()
    if listener.error is not None:
        raise listener.error
    return list(dict.fromkeys(names))


def _feeds(trt: Any, engine: Any) -> dict[str, Any]:
    """Seeded inputs of an engine whose inputs are all float32."""
    rng = np.random.default_rng(0)
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    fed = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    return {name: rng.standard_normal(tuple(engine.get_tensor_shape(name))).astype(np.float32) for name in fed}


def log_comes_from_threads(models: Mapping[str, Path]) -> Found:
    """Question 4."""
    trt = load_tensorrt()
    own = threading.get_ident()
    details: dict[str, Any] = {}
    lines = foreign = 0
    for name in (CONV, ATTENTION):
        built = bare_build(trt, models[name], threads=_THREADS)
        others = [line for line in built.lines if line.thread != own]
        lines, foreign = lines + len(built.lines), foreign + len(others)
        details[name] = {
            "lines": len(built.lines),
            "threads": len({line.thread for line in others}),
            "first": [line.words for line in others[:3]],
            "built": built.plan is not None,
        }
    words = f"{foreign:,} of {lines:,} lines came from another thread, with {_THREADS} threads and no crash"
    return (Reply.YES if foreign else Reply.NO if lines else Reply.UNKNOWN), words, details


def routes_change_layers(models: Mapping[str, Path]) -> Found:
    """Question 7: every knob with two values is turned once."""
    trt = load_tensorrt()
    if not has(trt, "IBuilderConfig.all_build_routes"):
        path = "IBuilderConfig.all_build_routes"
        return Reply.NO, f"TensorRT {version_of(trt)} has none; they exist since {since(path)}", {}
    normal = {name: _groups(layers_of(trt, bare_build(trt, models[name]))[0]) for name in (MLP, ATTENTION, CONV)}
    routes = str(make_builder(trt, ear(trt)[0]).create_builder_config().all_build_routes or "")
    details: dict[str, Any] = {"routes": routes}
    knobs = _knobs(routes)
    if not knobs:
        return Reply.NO, "the list of routes is empty or cannot be read", details
    changed, refused = {}, {}
    for name, value in knobs[:_KNOBS]:
        text = f"-{name}={value}"
        try:
            turned = {m: _groups(layers_of(trt, bare_build(trt, models[m], route=text))[0]) for m in normal}
        except EngineError as error:
            refused[text] = str(error)
            continue
        moved = [m for m in normal if turned[m] != normal[m]]
        if moved:
            changed[text] = moved
    details |= {"changed": changed, "refused": refused}
    words = f"{len(knobs)} knobs; {len(changed)} of {min(len(knobs), _KNOBS)} that were turned changed the layers"
    words += f": {', '.join(list(changed)[:4])}" if changed else ""
    return (Reply.YES if changed else Reply.UNKNOWN), words, details


def _knobs(text: str) -> list[tuple[str, str]]:
    """Knobs, each with a value that is not its default."""
    found = []
    try:
        listed = json.loads(text)["tuner_options"]
        for item in listed:
            allowed = str(item["allowed_values"]).partition("[")[2].rpartition("]")[0].split("|")
            others = [value for value in allowed if value and value != str(item.get("default_value", ""))]
            if others:
                found.append((str(item["option"]).lstrip("-"), others[0]))
    except (KeyError, TypeError, ValueError):
        pass
    return found


def _groups(info: EngineInfo) -> list[tuple[str, ...]]:
    """Which nodes are computed together."""
    return sorted(tuple(sorted(layer.nodes)) for layer in info.layers if layer.nodes)


ENGINE_QUESTIONS: Mapping[int, Callable[[Mapping[str, Path]], Found]] = {
    2: inspector_is_understood,
    3: all_covers_unfused,
    4: log_comes_from_threads,
    7: routes_change_layers,
}
