"""Every public name and signature of the simulator is in the manifest of its profile, and the other way round."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tests.simulated_tensorrt import PROFILES, assemble, manifest
from tests.simulated_tensorrt.plan import Plan
from tests.simulated_tensorrt.pybind import NotSimulatedError, make
from tests.simulated_tensorrt.signature import default_value, parse

# What a buffer in C has not and bytes, which stand for it, have: there to refuse, or to be true.
REFUSALS = {f"IHostMemory.{name}" for name in ("__bool__", "__getitem__", "__iter__", "__len__")}
SURFACE = """
init_libnvinfer_plugins get_nv_onnx_parser_version nptype volume
ILogger: __init__ log
Logger: __init__ log min_severity
IErrorRecorder: __init__ report_error num_errors get_error_code get_error_desc has_overflowed clear
IProgressMonitor: __init__ phase_start step_complete phase_finish
Builder: __init__ create_network create_builder_config create_optimization_profile build_serialized_network
  is_network_supported error_recorder logger max_threads num_DLA_cores
INetworkDefinition: num_layers get_layer __len__ __getitem__ num_inputs get_input num_outputs get_output mark_output
  unmark_output mark_debug unmark_debug is_debug_tensor mark_unfused_tensors_as_debug_tensors
  unmark_unfused_tensors_as_debug_tensors get_flag flags name error_recorder
ILayer: name metadata type num_inputs get_input num_outputs get_output
ITensor: name dtype shape is_network_input is_network_output is_shape_tensor is_execution_tensor location
  allowed_formats get_dimension_name
OnnxParser: __init__ parse parse_from_file supports_operator supports_model_v2 num_subgraphs is_subgraph_supported
  get_subgraph_nodes num_errors get_error clear_errors flags set_flag clear_flag get_flag get_layer_output_tensor
  set_builder_config
ParserError: code desc file line func node node_name node_operator local_function_stack local_function_stack_size
IBuilderConfig: set_flag clear_flag get_flag flags set_memory_pool_limit get_memory_pool_limit
  add_optimization_profile num_optimization_profiles create_timing_cache set_timing_cache get_timing_cache
  profiling_verbosity builder_optimization_level max_num_tactics avg_timing_iterations max_aux_streams
  set_tactic_sources get_tactic_sources tiling_optimization_level progress_monitor hardware_compatibility_level
  engine_capability set_preview_feature get_preview_feature remote_auto_tuning_config DLA_core default_device_type
  runtime_platform
IOptimizationProfile: set_shape get_shape set_shape_input get_shape_input __bool__
ITimingCache: serialize combine reset queryKeys query update
TimingCacheKey: parse __str__
TimingCacheValue: __init__ tacticHash timingMSec
IHostMemory: nbytes
Runtime: __init__ deserialize_cuda_engine engine_host_code_allowed error_recorder load_runtime
ICudaEngine: num_io_tensors get_tensor_name get_tensor_mode get_tensor_dtype get_tensor_shape get_tensor_format
  get_tensor_format_desc get_tensor_location get_tensor_bytes_per_component get_tensor_components_per_element
  get_tensor_vectorized_dim get_tensor_profile_shape get_tensor_profile_values is_shape_inference_io is_debug_tensor
  get_aliased_input_tensor num_layers num_optimization_profiles profiling_verbosity name refittable
  device_memory_size_v2 get_device_memory_size_for_profile_v2 create_execution_context create_engine_inspector
  serialize tactic_sources hardware_compatibility_level error_recorder weight_streaming_budget_v2
  streamable_weights_size get_weight_streaming_automatic_budget
IExecutionContext: engine active_optimization_profile set_optimization_profile_async set_input_shape get_tensor_shape
  get_tensor_strides infer_shapes set_tensor_address get_tensor_address set_output_allocator get_output_allocator
  get_max_output_size execute_async_v3 set_device_memory update_device_memory_size_for_shapes set_debug_listener
  get_debug_listener set_tensor_debug_state get_debug_state set_all_tensors_debug_state unfused_tensors_debug_state
  profiler report_to_profiler enqueue_emits_profile error_recorder
IDebugListener: __init__ process_debug_tensor
IOutputAllocator: __init__
IProfiler: __init__ report_layer_time
EngineInspector: execution_context get_layer_information get_engine_information error_recorder
Dims: __init__ __len__ __getitem__
Weights: __init__
IStreamReaderV2: __init__
"""


def surface() -> list[tuple[str, str]]:
    found, owner = [], ""
    for line in SURFACE.strip().splitlines():
        head, colon, rest = line.partition(":")
        owner = head if colon else owner
        found += [(owner, name) for name in (rest if colon else line).split()]
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_names_and_signatures_are_those_of_the_manifest(profile: str) -> None:
    real = manifest.flatten(assemble.manifest(profile))
    ours = manifest.dump(assemble.module(profile, Plan()))
    ours["DataType.itemsize"] = real["DataType.itemsize"]  # a property made in Python, with no signature to compare
    assert {name: text for name, text in ours.items() if real.get(name) != text and name not in REFUSALS} == {}
    assert set(real) - set(ours) == {"IHostMemory.__buffer__"}  # inherited from bytes
    assert bytes(memoryview(_blob(profile))) == b"abc"


def _blob(profile: str) -> Any:
    return make(assemble.module(profile, Plan()).IHostMemory, _data=b"abc")


@pytest.mark.parametrize("profile", PROFILES)
def test_templates_take_what_the_manifest_says(profile: str) -> None:
    """The functions behind the names have the parameters, in order, and the defaults of the real ones."""
    trt = assemble.module(profile, Plan())
    classes = {name: value for name, value in vars(trt).items() if isinstance(value, type)}
    wrong = []
    for name, entry in assemble.manifest(profile)["classes"].items():
        for method, lines in {**entry.get("methods", {}), **entry.get("static", {})}.items():
            play = getattr(vars(classes[name]).get(method), "played_by", None)
            if play is None or not lines or not lines[0].startswith(f"{method}(self:"):
                continue
            longest = max((parse(line) for line in lines), key=lambda s: len(s.parameters))
            taken = list(inspect.signature(play).parameters.values())
            if any(p.kind is p.VAR_POSITIONAL for p in taken):
                continue
            if len(lines) == 1 and [p.name for p in taken] != [p.name for p in longest.parameters]:
                wrong.append((name, method, [p.name for p in taken]))
            for mine, theirs in zip(taken, longest.parameters, strict=False):
                if theirs.default is not None and mine.default not in (None, _value(theirs.default, classes)):
                    wrong.append((name, method, mine.name))
    assert wrong == []


def _value(text: str, classes: dict[str, Any]) -> Any:
    return default_value(text, classes)


def test_every_name_that_a_template_plays_exists_in_some_version() -> None:
    known = set()
    for profile in PROFILES:
        for name, entry in assemble.manifest(profile)["classes"].items():
            for table in ("methods", "static", "properties"):
                known |= {(name, member) for member in entry.get(table, {})}
    played = {
        (name, member)
        for name, template in assemble.TEMPLATES.items()
        for kind in template.__mro__
        for member in vars(kind)
        if not member.startswith("_")
    }
    # Bases of templates hold what their subclasses share.
    inherited = {("Dims2", "h"), ("Dims2", "w")}
    assert played - known - inherited == set()


@pytest.mark.parametrize("profile", PROFILES)
def test_the_surface_that_the_adapter_needs_is_played(profile: str) -> None:
    trt = assemble.module(profile, Plan())
    wanted = surface()
    if profile == "11.4":
        wanted += [("IBuilderConfig", "build_route"), ("IBuilderConfig", "all_build_routes")]
    missing = []
    for owner, name in wanted:
        if not owner:
            missing += [] if callable(getattr(trt, name)) else [name]
            continue
        found = vars(getattr(trt, owner)).get(name)
        template = assemble.TEMPLATES.get(owner)
        played = template is not None and hasattr(template, name)
        if found is None or not played:
            missing.append(f"{owner}.{name}")
    assert missing == []
    assert len(wanted) > 200


@pytest.mark.parametrize(
    "path",
    [
        "BuilderFlag.FP16",
        "BuilderFlag.INT8",
        "BuilderFlag.OBEY_PRECISION_CONSTRAINTS",
        "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
        "IAlgorithmSelector",
        "IBuilderConfig.algorithm_selector",
        "IBuilderConfig.int8_calibrator",
        "ILayer.precision",
        "OnnxParser.supports_model",
        "TacticSource.CUBLAS",
        "ICudaEngine.device_memory_size",
        "ICudaEngine.has_implicit_batch_dimension",
        "IInt8EntropyCalibrator2",
    ],
)
def test_what_eleven_removed_is_gone_and_was_there(path: str) -> None:
    def find(module: Any) -> Any:
        found = module
        for name in path.split("."):
            found = getattr(found, name)
        return found

    find(assemble.module("10.16", Plan()))
    with pytest.raises(AttributeError):
        find(assemble.module("11.4", Plan()))


def test_build_routes_came_with_eleven() -> None:
    assert not hasattr(assemble.module("10.16", Plan()).IBuilderConfig, "build_route")
    assert hasattr(assemble.module("11.4", Plan()).IBuilderConfig, "build_route")


def test_what_is_not_simulated_says_so() -> None:
    trt = assemble.module("11.4", Plan())
    builder = trt.Builder(trt.Logger())
    with pytest.raises(NotSimulatedError, match="add_convolution_nd"):
        builder.create_network().add_convolution_nd()
    with pytest.raises(AttributeError, match="no attribute 'fp16'"):
        builder.create_builder_config().fp16 = True
