"""The engine: its tensors, its layers, its profiles."""

from __future__ import annotations

from typing import Any

from tests.simulated_tensorrt.attributes import Recorded
from tests.simulated_tensorrt.callbacks import Journal
from tests.simulated_tensorrt.compute import NUMPY
from tests.simulated_tensorrt.context import new_context
from tests.simulated_tensorrt.engine_file import EngineData
from tests.simulated_tensorrt.graph import Graph
from tests.simulated_tensorrt.pybind import make
from tests.simulated_tensorrt.shape_inputs import shape_inputs


class ICudaEngine(Recorded):
    """An engine."""

    _trt: Any
    _journal: Journal
    _engine: EngineData
    _graph: Graph
    _blob: bytes
    _hosted: set[str]
    _budget: int
    _programs: dict[Any, Any]

    def _names(self) -> list[str]:
        return [*self._graph.inputs, *self._engine.outputs]

    def _known(self, name: str) -> bool:
        if name in self._names():
            return True
        words = f"Given invalid tensor name: {name}. Get valid tensor names with getIOTensorName()"
        self._journal.error(words, code=3, recorders=(self._recorder,), where="ICudaEngine")
        return False

    @property
    def num_io_tensors(self) -> int:
        return len(self._names())

    def get_tensor_name(self, index: int) -> str:
        return self._names()[index]

    def __getitem__(self, arg0: int) -> str:
        return self._names()[arg0]

    def get_tensor_mode(self, name: str) -> Any:
        kinds = self._trt.TensorIOMode
        if not self._known(name):
            return kinds.NONE
        return kinds.INPUT if name in self._graph.inputs else kinds.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        self._known(name)
        return getattr(self._trt.DataType, self._graph.types.get(name, "FLOAT"))

    def get_tensor_shape(self, name: str) -> Any:
        if not self._known(name):
            return self._trt.Dims([-1])
        return self._trt.Dims(list(self._graph.shapes.get(name) or ()))

    def get_tensor_format(self, name: str, profile_index: int = 0) -> Any:
        return self._trt.TensorFormat.LINEAR

    def get_tensor_format_desc(self, name: str, profile_index: int = 0) -> str:
        words = {"FLOAT": "FP32", "HALF": "FP16"}
        kind = self._graph.types.get(name, "FLOAT")
        return f"Row-major linear {words.get(kind, kind)} format (kLINEAR)"

    def get_tensor_location(self, name: str) -> Any:
        kinds = self._trt.TensorLocation
        return kinds.HOST if self.is_shape_inference_io(name) else kinds.DEVICE

    def get_tensor_bytes_per_component(self, name: str, profile_index: int = 0) -> int:
        return int(NUMPY[self._graph.types.get(name, "FLOAT")].itemsize)

    def get_tensor_components_per_element(self, name: str, profile_index: int = 0) -> int:
        return 1

    def get_tensor_vectorized_dim(self, name: str, profile_index: int = 0) -> int:
        return -1

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        ranges = self._engine.profiles[profile_index].shapes.get(name, ((), (), ()))
        return [self._trt.Dims(list(sizes)) for sizes in ranges]

    def get_tensor_profile_values(self, name: int, profile_index: str) -> list[list[int]]:
        # The real binding calls its parameters the wrong way round: the number comes first.
        ranges = self._engine.profiles[name].values.get(profile_index, ())
        return [list(values) for values in ranges]

    def is_shape_inference_io(self, name: str) -> bool:
        return name in self._hosted or name in self._engine.traits.on_host

    def is_debug_tensor(self, name: str) -> bool:
        return name in self._engine.marked

    def get_aliased_input_tensor(self, name: str) -> str:
        return dict(self._engine.traits.aliased).get(name, "")

    @property
    def num_layers(self) -> int:
        return sum(len(layers) for layers in self._engine.layers)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._engine.profiles)

    @property
    def profiling_verbosity(self) -> Any:
        return self._trt.ProfilingVerbosity(self._engine.verbosity)

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def refittable(self) -> bool:
        return self._engine.refittable

    @property
    def tactic_sources(self) -> int:
        return self._engine.tactic_sources

    @property
    def engine_capability(self) -> Any:
        return self._trt.EngineCapability.STANDARD

    @property
    def hardware_compatibility_level(self) -> Any:
        return self._trt.HardwareCompatibilityLevel.NONE

    @property
    def num_aux_streams(self) -> int:
        return 0

    @property
    def device_memory_size_v2(self) -> int:
        return 1 << 20

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return 1 << 20

    @property
    def streamable_weights_size(self) -> int:
        return 0

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, value: int) -> None:
        self._budget = value

    @property
    def weight_streaming_scratch_memory_size(self) -> int:
        return 0

    def get_weight_streaming_automatic_budget(self) -> int:
        return 0

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
        return new_context(self, strategy)

    def create_engine_inspector(self) -> Any:
        return make(self._trt.EngineInspector, _engine=self, _context=None, _recorder=None)

    def create_runtime_config(self) -> Any:
        return make(self._trt.IRuntimeConfig, _strategy=self._trt.ExecutionContextAllocationStrategy.STATIC)

    def serialize(self) -> Any:
        return make(self._trt.IHostMemory, _data=self._blob)


class IRuntimeConfig:
    """How contexts are made."""

    _strategy: Any

    def get_execution_context_allocation_strategy(self) -> Any:
        return self._strategy

    def set_execution_context_allocation_strategy(self, strategy: Any = None) -> None:
        self._strategy = strategy


def new_engine(trt: Any, journal: Journal, data: EngineData, graph: Graph, blob: bytes) -> Any:
    """An engine from what its file holds."""
    made = make(
        trt.ICudaEngine,
        _graph=graph,
        _blob=blob,
        _hosted=shape_inputs(graph),
        _recorder=None,
        _budget=0,
        _programs={},
    )
    made._engine = data
    return made
