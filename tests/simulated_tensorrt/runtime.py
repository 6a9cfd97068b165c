"""The runtime: from an engine file to an engine."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import onnx

from tests.simulated_tensorrt.attributes import Rooted
from tests.simulated_tensorrt.callbacks import Journal
from tests.simulated_tensorrt.engine import new_engine
from tests.simulated_tensorrt.engine_file import from_bytes, version_of
from tests.simulated_tensorrt.graph import from_model
from tests.simulated_tensorrt.plan import LOADING, Plan


class Runtime(Rooted):
    """Loads engines."""

    _trt: Any
    _plan: Plan
    _journal: Journal
    _version: str

    def __init__(self, logger: Any) -> None:
        self._journal.register(logger)
        if self._plan.devices == 0:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._own_logger = logger
        self._recorder: Any = None
        self._threads = 1
        self._host_code = False

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        blob = _read(serialized_engine)
        version = version_of(blob)
        where = "IRuntime::deserializeCudaEngine"
        if version and version != self._version:
            words = (
                f"The engine plan file is not compatible with this version of TensorRT, expecting library version "
                f"{self._version} got {version}, please rebuild."
            )
            self._journal.error(words, code=1, recorders=(self._recorder,), where=where)
            return None
        try:
            data, model_bytes = from_bytes(blob)
        except (ValueError, KeyError, zlib.error, struct.error) as error:
            words = f"Serialization assertion failed: {error}"
            self._journal.error(words, code=1, recorders=(self._recorder,), where=where)
            return None
        if data.device != self._plan.device:
            self._journal.warning("Using an engine plan file across different models of devices is not supported.")
        if any(one.fault.effect in LOADING for one in data.sick):
            words = "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed."
            self._journal.error(words, code=1, recorders=(self._recorder,), where=where)
            return None
        model = onnx.ModelProto()
        model.ParseFromString(model_bytes)
        return new_engine(self._trt, self._journal, data, from_model(model), blob)

    def load_runtime(self, path: str) -> Any:
        return self

    @property
    def engine_host_code_allowed(self) -> bool:
        return self._host_code

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, value: bool) -> None:
        self._host_code = value

    @property
    def DLA_core(self) -> int:
        return 0

    @DLA_core.setter
    def DLA_core(self, value: int) -> None:
        return None


def _read(source: Any) -> bytes:
    if not hasattr(source, "read") or isinstance(source, (bytes, bytearray)):
        return bytes(source)
    import ctypes

    found = bytearray()
    buffer = ctypes.create_string_buffer(1 << 20)
    while (count := source.read(ctypes.addressof(buffer), len(buffer), 0)) > 0:
        found += buffer.raw[:count]
    return bytes(found)
