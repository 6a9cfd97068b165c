"""Builds of the simulator: parser, fusion, tactics, the timing cache, both dialects of the log, the inspector."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from tests.simulated_tensorrt import PROFILES, assemble, drive, models
from tests.simulated_tensorrt.plan import Plan
from tests.simulated_tensorrt.routes import read_route

SHAPES = [{"x": ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}]
EDITABLE = ("EDITABLE_TIMING_CACHE",)
STRICT = ("EDITABLE_TIMING_CACHE", "ERROR_ON_TIMING_CACHE_MISS")


@pytest.fixture(params=PROFILES)
def trt(request: pytest.FixtureRequest) -> Any:
    return assemble.module(request.param, Plan())


def layers_of(trt: Any, built: drive.Built) -> list[dict[str, Any]]:
    assert built.blob is not None, built.errors
    layers: list[dict[str, Any]] = json.loads(drive.Session(trt, built.blob).information())["Layers"]
    return layers


def names_of(trt: Any, built: drive.Built) -> list[str]:
    return [layer["Name"] for layer in layers_of(trt, built) if layer["LayerType"] != "Reformat"]


def pieces(layer: dict[str, Any]) -> list[str]:
    return re.findall(r"\[ONNX Layer: ([^\]]*)\]", layer["Metadata"])


# the parser


def parser_of(trt: Any) -> tuple[Any, Any]:
    network = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR)).create_network(0)
    return trt.OnnxParser(network, trt.Logger()), network


def test_an_input_that_is_an_output_gets_another_name(trt: Any) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"], name="neg")]
    floats = [("x", TensorProto.FLOAT, [2]), ("y", TensorProto.FLOAT, [2])]
    parser, network = parser_of(trt)
    assert parser.parse(models.model(nodes, floats[:1], floats).SerializeToString())
    assert [network.get_input(i).name for i in range(network.num_inputs)] == ["__x"]
    assert {network.get_output(i).name for i in range(network.num_outputs)} == {"x", "y"}


@pytest.mark.parametrize("kind", [TensorProto.UINT4, TensorProto.FLOAT8E5M2, TensorProto.UINT32, TensorProto.STRING])
def test_types_that_do_not_exist_here_are_refused(trt: Any, kind: int) -> None:
    made = models.model([helper.make_node("Identity", ["x"], ["y"])], [("x", kind, [2])], [("y", kind, [2])])
    parser, _ = parser_of(trt)
    assert not parser.parse(made.SerializeToString())
    assert parser.get_error(0).code() == trt.ErrorCode.UNSUPPORTED_NODE_DATATYPE


def test_an_unsupported_node_is_named(trt: Any) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="fine"),
        helper.make_node("Det", ["r"], ["d"], name="bad"),
        helper.make_node("Neg", ["d"], ["y"], name="after"),
    ]
    model = models.model(nodes, [("x", TensorProto.FLOAT, [2, 2])], [("y", TensorProto.FLOAT, [])])
    parser, _ = parser_of(trt)
    assert not parser.parse(model.SerializeToString())
    assert parser.num_errors == 1
    error = parser.get_error(0)
    assert (error.code(), error.node(), error.node_name(), error.node_operator()) == (
        trt.ErrorCode.UNSUPPORTED_NODE,
        1,
        "bad",
        "Det",
    )
    assert "Det" in error.desc() and error.local_function_stack() == []
    parser.clear_errors()
    assert parser.num_errors == 0
    assert not parser.supports_model_v2(model.SerializeToString())
    found = [(parser.get_subgraph_nodes(i), parser.is_subgraph_supported(i)) for i in range(parser.num_subgraphs)]
    assert found == [([0], True), ([1], False), ([2], True)]
    assert parser.supports_operator("Relu") and not parser.supports_operator("Det")


def test_the_stack_of_functions_is_told(trt: Any) -> None:
    inner = helper.make_function(
        "mine",
        "Inner",
        ["a"],
        ["b"],
        [helper.make_node("Det", ["a"], ["b"], name="det")],
        [helper.make_opsetid("", 17)],
    )
    outer = helper.make_function(
        "mine",
        "Outer",
        ["a"],
        ["b"],
        [helper.make_node("Inner", ["a"], ["b"], domain="mine")],
        [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)],
    )
    model = models.model(
        [helper.make_node("Outer", ["x"], ["y"], name="call", domain="mine")],
        [("x", TensorProto.FLOAT, [2, 2])],
        [("y", TensorProto.FLOAT, [])],
    )
    model.functions.extend([inner, outer])
    model.opset_import.append(helper.make_opsetid("mine", 1))
    parser, _ = parser_of(trt)
    assert not parser.parse(model.SerializeToString())
    error = parser.get_error(0)
    assert error.local_function_stack() == ["Outer", "Inner"] and error.local_function_stack_size() == 2
    assert (error.node(), error.node_name()) == (0, "det")


def test_functions_are_inlined_and_names_made_unique(trt: Any) -> None:
    double = helper.make_function(
        "mine", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    nodes = [
        helper.make_node("Double", ["x"], ["d"], domain="mine"),
        helper.make_node("Neg", ["d"], ["n"], name="twice"),
        helper.make_node("Neg", ["n"], ["y"], name="twice"),
    ]
    model = models.model(nodes, [("x", TensorProto.FLOAT, [2])], [("y", TensorProto.FLOAT, [2])])
    model.functions.append(double)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    parser, network = parser_of(trt)
    assert parser.parse(model.SerializeToString())
    names = [network.get_layer(i).name for i in range(network.num_layers)]
    assert names[1:] == ["twice", "twice_1"] and names[0]
    assert network[1].metadata == "[ONNX Layer: twice]"
    assert parser.get_layer_output_tensor("twice", 0).name == "n"


@pytest.mark.parametrize("opset", [8, 25])
def test_opsets_beyond_the_table_are_refused(trt: Any, opset: int) -> None:
    model = models.model(
        [helper.make_node("Relu", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, [2])],
        [("y", TensorProto.FLOAT, [2])],
        opset=opset,
    )
    parser, _ = parser_of(trt)
    assert not parser.parse(model.SerializeToString())
    assert parser.get_error(0).code() == trt.ErrorCode.UNSUPPORTED_GRAPH


def test_files_weights_outside_and_rubbish(trt: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(models.mlp(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    parser, network = parser_of(trt)
    assert parser.parse_from_file(str(path)) and network.num_layers == 15
    parser, _ = parser_of(trt)
    assert parser.parse(path.read_bytes(), str(path))
    parser, _ = parser_of(trt)
    assert not parser.parse(path.read_bytes(), str(tmp_path / "elsewhere" / "model.onnx"))
    parser, _ = parser_of(trt)
    assert not parser.parse(b"rubbish")
    assert parser.get_error(0).code() == trt.ErrorCode.MODEL_DESERIALIZE_FAILED
    parser, _ = parser_of(trt)
    assert not parser.parse_from_file(str(tmp_path / "missing.onnx"))


def test_subgraphs_are_undefined_before_they_are_asked_for(trt: Any) -> None:
    parser, _ = parser_of(trt)
    with pytest.raises(RuntimeError, match="undefined"):
        _ = parser.num_subgraphs


# fusion


def test_layers_are_fused_and_named(trt: Any) -> None:
    built = drive.build(trt, models.conv_net(), profiles=SHAPES)
    assert names_of(trt, built) == [
        "conv1 + relu1",
        "conv2 + add2 + relu2",
        "pool",
        "flat",
        "fc_myl0_0",
        "__myl_Soft_myl0_1",
    ]
    layers = {layer["Name"]: layer for layer in layers_of(trt, built)}
    assert layers["conv1 + relu1"]["Metadata"] == "[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]"
    assert layers["conv1 + relu1"]["LayerType"] == "CaskConvolution"
    assert layers["fc_myl0_0"]["LayerType"] == "gemm" and layers["__myl_Soft_myl0_1"]["LayerType"] == "kgen"
    mlp = {layer["Name"]: layer for layer in layers_of(trt, drive.build(trt, models.mlp()))}
    assert (
        mlp["__myl_SigmMulTanh_myl0_1"]["Metadata"]
        == "[ONNX Layer: sigmoid0]\x1f[ONNX Layer: mul0]\x1f[ONNX Layer: tanh0]"
    )


@pytest.mark.parametrize("mark", ["mark_output", "mark_debug"])
def test_marks_split_groups(trt: Any, mark: str) -> None:
    def network(made: Any) -> None:
        getattr(made, mark)(made.get_layer(0).get_output(0))

    built = drive.build(trt, models.conv_net(), profiles=SHAPES, network=network)
    assert names_of(trt, built)[:3] == ["conv1", "__myl_Relu_myl0_0", "conv2 + add2 + relu2"]


def test_unfused_debug_tensors_leave_the_layers_alone(trt: Any) -> None:
    def network(made: Any) -> None:
        assert made.mark_unfused_tensors_as_debug_tensors()

    plain = drive.build(trt, models.conv_net(), profiles=SHAPES)
    marked = drive.build(trt, models.conv_net(), profiles=SHAPES, network=network)
    assert layers_of(trt, plain) == layers_of(trt, marked)
    assert plain.tactics == marked.tactics


def test_every_knob_can_be_flipped_and_rubbish_is_dropped() -> None:
    trt = assemble.module("11.4", Plan())
    config = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR)).create_builder_config()
    document = json.loads(config.all_build_routes)
    assert document["tuner_version"]
    plain = names_of(trt, drive.build(trt, models.conv_net(), profiles=SHAPES))
    changed = []
    for option in document["tuner_options"]:
        name = option["option"]
        values = option["allowed_values"].partition("=[")[2].rstrip("]").split("|")
        other = next(value for value in values if value != option["default_value"])
        built = drive.build(trt, models.conv_net(), profiles=SHAPES, build_route=f"{name}={other}")
        changed += [name] if names_of(trt, built) != plain else []
    assert changed == ["-conv_act_fusion", "-conv_add_fusion"]
    values, complaints = read_route("-no=1 -slice_fusion=maybe -copy_ppg=off")
    assert len(complaints) == 2 and values["-copy_ppg"] == "off" and values["-slice_fusion"] == "on"


def test_level_nought_generates_no_runs(trt: Any) -> None:
    built = drive.build(trt, models.mlp(1), builder_optimization_level=0)
    assert names_of(trt, built) == ["matmul0_myl0_0", "__myl_Sigm_myl0_1", "__myl_Mul_myl0_2", "__myl_Tanh_myl0_3"]


# refusals, log, inspector


def test_dynamic_inputs_need_a_profile(trt: Any) -> None:
    built = drive.build(trt, models.conv_net())
    assert built.blob is None and "optimization profile" in built.errors[-1]
    wrong = drive.build(trt, models.conv_net(), profiles=[{"x": ((1, 4, 8, 8),) * 3}])
    assert wrong.blob is None
    profile = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR)).create_optimization_profile()
    assert not profile
    with pytest.raises(RuntimeError):
        profile.set_shape("x", (2, 3), (1, 3), (4, 3))


def test_errors_reach_the_recorder(trt: Any) -> None:
    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self.errors: list[tuple[Any, str]] = []

        def report_error(self, code: Any, desc: str) -> bool:
            self.errors.append((code, desc))
            return False

    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder, recorder = trt.Builder(logger), Recorder()
    builder.error_recorder = recorder
    assert builder.build_serialized_network(builder.create_network(0), builder.create_builder_config()) is None
    assert "at least one output" in recorder.errors[0][1] and recorder.errors[0][0].name != "SUCCESS"


def test_the_first_logger_stays(trt: Any) -> None:
    first, second = drive.logger_of(trt), drive.logger_of(trt)
    trt.Builder(first)
    trt.Builder(second)
    assert second.lines == [] and "already registered" in first.lines[-1][1]


def test_a_monitor_cancels(trt: Any) -> None:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps = 0

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.steps += 1
            return self.steps < 2

    monitor = Monitor()
    built = drive.build(trt, models.mlp(), progress_monitor=monitor)
    assert built.blob is None and "cancelled" in built.errors[-1]


def test_schemas_of_the_inspector() -> None:
    documents = {}
    for profile in PROFILES:
        trt = assemble.module(profile, Plan())
        blob = drive.build(trt, models.conv_net(), profiles=SHAPES).blob
        assert blob
        documents[profile] = json.loads(drive.Session(trt, blob).information())
    assert documents["10.16"]["Bindings"] == ["x", "y"] and "I/O Tensors" not in documents["10.16"]
    first = documents["11.4"]["I/O Tensors"][0]
    assert (first["Name"], first["IOMode"], first["ProfileInfo"][0]["OptShape"]) == ("x", "INPUT", [2, 3, 8, 8])
    ten, eleven = (documents[p]["Layers"][0]["Inputs"][0] for p in PROFILES)
    assert "Format/Datatype" in ten and {"Format", "Datatype"} <= set(eleven)


def test_names_only_gives_strings_and_one_line_is_text(trt: Any) -> None:
    built = drive.build(trt, models.mlp(1), profiling_verbosity=trt.ProfilingVerbosity.LAYER_NAMES_ONLY)
    assert built.blob
    engine = drive.Session(trt, built.blob).engine
    inspector = engine.create_engine_inspector()
    assert json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))["Layers"] == [
        "matmul0_myl0_0",
        "__myl_SigmMulTanh_myl0_1",
    ]
    assert inspector.get_engine_information(trt.LayerInformationFormat.ONELINE).startswith("Layers:\nmatmul0_myl0_0\n")
    assert inspector.get_layer_information(0, trt.LayerInformationFormat.ONELINE) == "matmul0_myl0_0\n"


def test_lines_from_another_thread_are_the_same_lines() -> None:
    import threading

    trt = assemble.module("11.4", Plan(log_threads=True))
    seen = set()

    class Keeper(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            seen.add(threading.current_thread() is threading.main_thread())

    parser = trt.OnnxParser(trt.Builder(Keeper()).create_network(0), trt.Logger())
    parser.parse(models.mlp().SerializeToString())
    assert seen == {False}
