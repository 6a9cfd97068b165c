"""The way to CUDA that is there: the package cuda-python, or the runtime library itself."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from surgeon_debug.runners.tensorrt.cuda_runtime import CudaRuntime
from surgeon_debug.runners.tensorrt.device_memory import CudaError, DeviceMemory
from surgeon_passes.errors import EngineError

_LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")


def open_memory() -> DeviceMemory:
    """CUDA, by whatever way is there.

    Raises:
        EngineError: There is no way to it, or no device.
    """
    memory: DeviceMemory
    if _has_bindings():
        from surgeon_debug.runners.tensorrt.cuda_python import CudaPython

        memory = CudaPython()
    else:
        memory = CudaRuntime(_library())
    try:
        memory.device_info()
    except CudaError as error:
        words = error.what.partition(": ")[2]
        raise EngineError(
            f"runner tensorrt finds no GPU that it can use here: {words}",
            hint="run it where nvidia-smi shows a GPU",
        ) from error
    return memory


def _has_bindings() -> bool:
    try:
        return importlib.util.find_spec("cuda.bindings.runtime") is not None
    except (ImportError, ValueError):
        return False


def _library() -> ctypes.CDLL:
    for name in (*_LIBRARIES, *map(str, _packaged())):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    raise EngineError(
        "runner tensorrt needs CUDA's runtime library, which is not installed", hint="run pip install cuda-python"
    )


def _packaged() -> Iterator[Path]:
    """The library in NVIDIA's Python packages, where the system's loader does not look."""
    found = importlib.util.find_spec("nvidia")
    for folder in found.submodule_search_locations or () if found else ():
        yield from sorted(Path(folder).glob("*/lib/libcudart.so.*"), reverse=True)
