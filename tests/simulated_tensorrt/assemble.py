"""Puts the module together: every name of the manifest, played by the templates of this package."""

from __future__ import annotations

import functools
import json
import sys
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.simulated_tensorrt import (
    HOME,
    VERSIONS,
    builder,
    callbacks,
    config,
    context,
    engine,
    inspector,
    network,
    parser,
    runtime,
    timing_cache,
    values,
)
from tests.simulated_tensorrt.callbacks import Journal
from tests.simulated_tensorrt.plan import Plan, active
from tests.simulated_tensorrt.pybind import Classes, make_class, make_enum

TEMPLATES: Mapping[str, type] = {
    "Builder": builder.Builder,
    "Dims": values.Dims,
    "Dims2": values.FixedDims,
    "Dims3": values.FixedDims,
    "Dims4": values.FixedDims,
    "DimsHW": values.DimsHW,
    "EngineInspector": inspector.EngineInspector,
    "IBuilderConfig": config.IBuilderConfig,
    "ICudaEngine": engine.ICudaEngine,
    "IDebugListener": callbacks.IDebugListener,
    "IErrorRecorder": callbacks.IErrorRecorder,
    "IExecutionContext": context.IExecutionContext,
    "IGpuAllocator": callbacks.Callback,
    "IGpuAsyncAllocator": callbacks.Callback,
    "IHostMemory": values.IHostMemory,
    "ILayer": network.ILayer,
    "ILogger": callbacks.ILogger,
    "INetworkDefinition": network.INetworkDefinition,
    "IOptimizationProfile": config.IOptimizationProfile,
    "IOutputAllocator": callbacks.Callback,
    "IProfiler": callbacks.IProfiler,
    "IProgressMonitor": callbacks.IProgressMonitor,
    "IRuntimeConfig": engine.IRuntimeConfig,
    "IStreamReaderV2": callbacks.Callback,
    "IStreamWriter": callbacks.Callback,
    "ITensor": network.ITensor,
    "ITimingCache": timing_cache.ITimingCache,
    "Logger": callbacks.Logger,
    "OnnxParser": parser.OnnxParser,
    "ParserError": parser.ParserError,
    "Permutation": values.Permutation,
    "Profiler": callbacks.Profiler,
    "Runtime": runtime.Runtime,
    "TimingCacheKey": values.TimingCacheKey,
    "TimingCacheValue": values.TimingCacheValue,
    "Weights": values.Weights,
}
"""What plays each class; classes without a template exist and do nothing."""

_PROFILE_ONLY = {"IHostMemory": (bytes,)}
_ITEM_SIZES = {"INT4": 0.5, "FP4": 0.5, "HALF": 2, "BF16": 2, "FLOAT": 4, "INT32": 4, "INT64": 8}


class _DataType:
    @property
    def itemsize(this) -> Any:
        return _ITEM_SIZES.get(this.name, 1)  # type: ignore[attr-defined]


@functools.cache
def manifest(profile: str) -> dict[str, Any]:
    """The names and signatures of the real module."""
    found: dict[str, Any] = json.loads((HOME / "manifests" / f"api_{profile}.json").read_text())
    return found


def fill(namespace: dict[str, Any], profile: str, plan: Plan | None = None) -> None:
    """Put the names of a profile into a module's namespace.

    Args:
        namespace: The module's globals.
        profile: One of PROFILES.
        plan: What is wrong; None for what the environment says.
    """
    data = manifest(profile)
    trt = types.SimpleNamespace()
    played_by = active() if plan is None else plan
    shared: dict[str, Any] = {
        "_trt": trt,
        "_plan": played_by,
        "_journal": Journal(trt, played_by),
        "_version": VERSIONS[profile],
        "_profile": profile,
    }
    module = namespace.get("__name__", "tensorrt") + ".tensorrt"
    classes: Classes = {}
    for name, entry in sorted(data["classes"].items()):
        if entry.get("kind") == "enum":
            template = _DataType if name == "DataType" else None
            classes[name] = make_enum(name, entry["members"], module, template)
    for name in data["classes"]:
        _add(name, data["classes"], classes, module, shared)
    for made in classes.values():
        made._classes = classes
    severity = make_enum("Severity", data["classes"]["ILogger"]["nested"]["Severity"]["members"], module, None)
    for owner in (classes["ILogger"], classes["Logger"]):
        owner.Severity = severity
        for member, value in severity.__members__.items():
            setattr(owner, member, value)
    vars(trt).update(classes)
    namespace.update(classes)
    kinds = classes["DataType"]
    for name, text in data["values"].items():
        namespace[name] = getattr(kinds, text.split(".")[1].split(":")[0])
    namespace.update(_functions(kinds, profile, shared["_journal"]))
    namespace["__version__"] = VERSIONS[profile]


def module(profile: str, plan: Plan | None = None, name: str = "tensorrt") -> types.ModuleType:
    """A new module, in no table of modules unless the caller puts it there."""
    made = types.ModuleType(name)
    fill(vars(made), profile, plan)
    return made


def _add(name: str, entries: Mapping[str, Any], classes: Classes, module: str, shared: dict[str, Any]) -> Any:
    if name in classes:
        return classes[name]
    entry = entries[name]
    bases = [_add(base, entries, classes, module, shared) for base in entry.get("bases", ()) if base in entries]
    template = TEMPLATES.get(name)
    made = make_class(name, entry, template, [*bases, *_PROFILE_ONLY.get(name, ())], module, classes)
    for attribute, value in shared.items():
        setattr(made, attribute, value)
    classes[name] = made
    return made


def _functions(kinds: Any, profile: str, journal: Journal) -> dict[str, Any]:
    numpy_types = {
        "FLOAT": np.float32,
        "HALF": np.float16,
        "INT8": np.int8,
        "INT32": np.int32,
        "INT64": np.int64,
        "BOOL": np.bool_,
        "UINT8": np.uint8,
    }

    def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
        if logger is not None:
            journal.register(logger)
        return True

    def get_nv_onnx_parser_version() -> int:
        major, minor = profile.split(".")
        return int(major) * 10000 + int(minor) * 100

    def nptype(trt_type: Any) -> Any:
        if isinstance(trt_type, kinds) and trt_type.name in numpy_types:
            return numpy_types[trt_type.name]
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")

    init_libnvinfer_plugins.__doc__ = (
        "init_libnvinfer_plugins(logger: typing_extensions.CapsuleType, namespace: str) -> bool"
    )
    get_nv_onnx_parser_version.__doc__ = "get_nv_onnx_parser_version() -> int"
    found = {f.__name__: f for f in (init_libnvinfer_plugins, get_nv_onnx_parser_version, nptype, values.volume)}
    for name, lines in manifest(profile)["functions"].items():
        found.setdefault(name, _unplayed(name, lines[0]))
    return found


def _unplayed(name: str, line: str) -> Any:
    from tests.simulated_tensorrt.pybind import NotSimulatedError

    def function(*args: Any, **kwargs: Any) -> Any:
        raise NotSimulatedError(f"the simulator does not play {name}")

    function.__name__ = name
    function.__doc__ = line
    return function


def loaded(profile: str, plan: Plan | None = None) -> types.ModuleType:
    """A new module that also stands in ``sys.modules`` as ``tensorrt``; the caller takes it out again."""
    made = module(profile, plan)
    sys.modules["tensorrt"] = made
    return made
