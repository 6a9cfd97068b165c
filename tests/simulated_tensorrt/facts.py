"""Small expressions over a TensorRT module and what they give, so that two modules can be compared.

``python -m tests.simulated_tensorrt.facts MODULE`` prints one JSON list; the expressions need no GPU and no library.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import pickle
import re
import sys
import warnings
from typing import Any

EXPRESSIONS = """
trt.DataType.FLOAT == 0
trt.DataType.FLOAT == trt.DataType(0)
trt.DataType.FLOAT != trt.DataType.HALF
int(trt.BuilderFlag.TF32)
1 << trt.BuilderFlag.TF32
1 << int(trt.BuilderFlag.TF32)
[k.itemsize for k in (trt.float32, trt.float16, trt.bfloat16, trt.int8, trt.int64, trt.int4, trt.fp4, trt.bool)]
trt.nptype(trt.float32)
trt.nptype(trt.bool)
trt.nptype(trt.bfloat16)
trt.nptype(trt.fp8)
repr(trt.DataType.FLOAT)
str(trt.DataType.FLOAT)
hash(trt.DataType.HALF)
repr(trt.DataType(99))
trt.DataType("FLOAT")
trt.DataType.FLOAT | trt.DataType.HALF
trt.DataType.FLOAT < trt.DataType.HALF
sorted(trt.DataType.__members__)
sorted(trt.TensorFormat.__members__)
sorted(trt.ErrorCodeTRT.__members__)
trt.DataType.FLOAT.name
trt.DataType.FLOAT.value
trt.float32 == trt.DataType.FLOAT
trt.DataType.FLOAT in (trt.DataType.HALF, trt.DataType.FLOAT)
{trt.DataType.FLOAT: 1}[trt.float32]
bool(trt.DataType.FLOAT)
len(pickle.dumps(trt.DataType.FLOAT)) > 0
pickle.dumps(trt.Dims([1]))
repr(trt.Dims([1, 2, 3]))
str(trt.Dims((1, 2, 3)))
tuple(trt.Dims([1, 2, 3]))
list(trt.Dims(()))
trt.Dims([1, 2, 3]) == (1, 2, 3)
trt.Dims([1, 2, 3]) == [1, 2]
trt.Dims([1, 2, 3]) == trt.Dims([1, 2, 3])
trt.Dims([1, 2, 3])[-1]
trt.Dims([1, 2, 3])[5]
trt.Dims([1, 2, 3])[0:2]
len(trt.Dims())
hash(trt.Dims([1]))
trt.Dims(list(range(9)))
trt.Dims([1.5])
trt.Dims("ab")
trt.Dims(7)
trt.Dims([1, 2]).MAX_DIMS
repr(trt.Dims2(1, 2))
repr(trt.Dims3([1, 2, 3]))
trt.DimsHW(1, 2).w
issubclass(trt.Dims2, trt.Dims)
repr(trt.Permutation([1, 0]))
trt.TimingCacheKey.parse("0x12")
trt.TimingCacheKey.parse("1a" * 17)
trt.TimingCacheKey.parse("0x" + "zz" * 16)
str(trt.TimingCacheKey.parse("0x" + "1A" * 16))
str(trt.TimingCacheKey.parse("0X1g" + "1a" * 15))
trt.TimingCacheKey.parse("0x" + "1a" * 16) == trt.TimingCacheKey.parse("0x" + "1a" * 16)
trt.TimingCacheKey()
trt.TimingCacheKey.parse(12)
trt.TimingCacheValue(2**64 - 1, float("nan")).tacticHash
trt.TimingCacheValue(2**64, 1.0)
trt.TimingCacheValue(-1, 1.0)
trt.TimingCacheValue(5, 0.1).timingMSec
trt.TimingCacheValue(5, "a")
trt.TimingCacheValue(tacticHash=5, timingMSec=1)
trt.Builder()
trt.Builder(3)
trt.Builder(logger=trt.DataType.FLOAT)
trt.Runtime(None, None)
trt.IBuilderConfig()
trt.ICudaEngine()
trt.IExecutionContext()
trt.IHostMemory()
trt.ITimingCache()
trt.INetworkDefinition()
trt.IOptimizationProfile()
repr(trt.Logger(trt.Logger.VERBOSE).min_severity)
repr(trt.Logger(min_severity=trt.ILogger.Severity.ERROR).min_severity)
repr(trt.Logger().min_severity)
trt.Logger(3)
trt.Logger().log(trt.Logger.ERROR, "hello")
trt.Logger().log(1, "hello")
trt.ILogger().log(trt.Logger.ERROR, "x")
repr(trt.ILogger.WARNING)
trt.Logger.Severity is trt.ILogger.Severity
isinstance(trt.Logger(), trt.ILogger)
trt.Logger().foo
setattr(trt.Logger(), "foo", 1)
setattr(trt.Dims(), "foo", 1)
trt.volume((2, 3))
trt.volume(trt.Dims([2, 3]))
trt.volume(())
trt.Weights(trt.float32).numpy().dtype.name
trt.Weights().size
trt.Weights(np.ones(3, np.float32)).nbytes
trt.IErrorRecorder().num_errors()
trt.IDebugListener() is None
trt.IOutputAllocator() is None
trt.IProfiler() is None
trt.IProgressMonitor() is None
trt.Profiler() is None
trt.IDebugListener().process_debug_tensor()
trt.no_such_name
trt.BuilderFlag.NO_SUCH_FLAG
hasattr(trt.BuilderFlag, "FP16")
hasattr(trt.IBuilderConfig, "algorithm_selector")
hasattr(trt.IBuilderConfig, "build_route")
hasattr(trt.ILayer, "precision")
int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
Sub(trt.ILogger)().x
Forgot(trt.ILogger)()
Forgot(trt.IErrorRecorder)()
Forgot(trt.IDebugListener)()
Sub(trt.IErrorRecorder)().x
Sub(trt.IDebugListener)().x
Sub(trt.IOutputAllocator)().x
Sub(trt.IProfiler)().x
Sub(trt.IProgressMonitor)().x
Sub(trt.IBuilderConfig)()
Sub(trt.Logger)().x
"""
"""One to a line; ``Sub(X)`` is a subclass that calls its base's constructor, ``Forgot(X)`` one that does not."""


def _subclass(base: Any) -> Any:
    class Sub(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.x = 1

        def log(self, severity: Any, msg: str) -> None:
            """Says nothing."""

    return Sub


def _forgetful(base: Any) -> Any:
    class Forgot(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.x = 1

    return Forgot


def facts(trt: Any) -> list[list[str]]:
    """(expression, value or exception) of each."""
    import numpy as np

    scope = {"trt": trt, "np": np, "pickle": pickle, "Sub": _subclass, "Forgot": _forgetful}
    found = []
    for line in EXPRESSIONS.strip().splitlines():
        stream = io.StringIO()
        try:
            with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                said = f"gives {eval(line, dict(scope))!r}"
        except Exception as error:  # noqa: BLE001  (which one is what is asked)
            said = f"raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        found.append([line, _without_names(said, trt.__name__)])
    return found


def _without_names(text: str, package: str) -> str:
    text = text.removesuffix(" and no __dict__ for setting new attributes")  # as Python words it from 3.13 on
    text = re.sub(rf"\b{package}\.tensorrt\.|\b{package}\.|\btensorrt\.", "", text)
    return re.sub(rf"module '{package}'", "module", re.sub(r"0x[0-9a-f]{6,}", "0x", text))


def main(name: str) -> None:
    """Print the facts of a module."""
    sys.stdout.write("FACTS" + json.dumps(facts(importlib.import_module(name))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
