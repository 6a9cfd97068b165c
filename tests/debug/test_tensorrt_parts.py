"""Parts of the runner ``tensorrt`` that need no engine: what it reads, checks and maps."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import strategies as st

from surgeon_debug.element_types import Buffer
from surgeon_debug.endings import Ending
from surgeon_debug.runners.tensorrt import build_request, profiles, record, timing_cache
from surgeon_debug.runners.tensorrt.build_request import BuildOptions, build_address, parse_route, route_text
from surgeon_debug.runners.tensorrt.datatypes import bytes_of, value_of
from surgeon_debug.runners.tensorrt.debug_listener import Shown, make_listener
from surgeon_debug.runners.tensorrt.device_memory import CudaError, DeviceInfo
from surgeon_debug.runners.tensorrt.failures import BuildFailure, BuildStatus, cache_not_followed
from surgeon_debug.runners.tensorrt.inspector import info_from_json, parse_engine
from surgeon_debug.runners.tensorrt.layer_map import How, LayerMap, ModelTensor, model_name
from surgeon_debug.runners.tensorrt.model_source import bytes_for_parser, double_tensors, passed_through
from surgeon_debug.runners.tensorrt.module import CAPABILITIES, capabilities, require
from surgeon_debug.runners.tensorrt.output_allocator import HostHeap
from surgeon_debug.runners.tensorrt.parse import ParseIssue
from surgeon_debug.runners.tensorrt.tactic_check import check_kernels
from surgeon_debug.runners.tensorrt.timing_cache import CacheEntry, Pin, check_followed
from surgeon_passes.errors import BadOptionError, EngineError

MANIFESTS = sorted((Path(__file__).parent.parent / "simulated_tensorrt" / "manifests").glob("api_*.json"))
DEVICE = DeviceInfo("G", "9.0", 132, 80 << 30, 13000, 13000)

OLD = {
    "Layers": [
        {"Name": "conv + relu", "LayerType": "CaskConvolution", "TacticName": "k1", "TacticValue": "0x00AB",
         "Inputs": [{"Name": "x", "Dimensions": [1, 3], "Format/Datatype": "Row major linear FP32"}],
         "Outputs": [{"Name": "r", "Dimensions": [1, 4], "Format/Datatype": "Two wide channel vectorized row major"}],
         "Metadata": "[ONNX Layer: conv]\x1e[ONNX Layer: relu]", "Extra": 7},
        {"Name": "Reformatting CopyNode for Input Tensor 0 to gemm", "LayerType": "Reformat",
         "Inputs": [{"Name": "r"}], "Outputs": [{"Name": "r'"}], "Metadata": "", "Origin": "REFORMAT"},
        {"Name": "gemm_myl0_1", "LayerType": "gemm", "Inputs": [{"Name": "r'"}],
         "Outputs": [{"Name": "__mye1", "Dimensions": [1, 4]}], "Metadata": "[ONNX Layer: mm]\x1f[ONNX Layer: add]"},
    ],
    "Bindings": ["x", "y"],
}  # fmt: skip
NEW = {
    "Layers": [{"Name": "l", "Inputs": [{"Name": "x", "Dimensions": [2], "Type": "Float", "Format": "LINEAR"}]}],
    "I/O Tensors": [{"Name": "x", "Mode": "Input"}, {"Name": "y", "Mode": "Output"}],
}


def test_both_schemas_of_the_inspector() -> None:
    old, new = parse_engine(json.dumps(OLD)), parse_engine(json.dumps(NEW))
    first = old.layers[0]
    assert (first.nodes, first.kernel, first.tactic, first.rest) == (("conv", "relu"), "k1", "0xab", {"Extra": 7})
    assert (
        first.inputs[0].linear is True and first.outputs[0].linear is False and old.layers[1].inputs[0].linear is None
    )
    assert old.bindings == new.bindings == ("x", "y") and new.layers[0].inputs[0].linear is True
    assert info_from_json(old.to_json()).to_json() == old.to_json()
    names = parse_engine(json.dumps({"Layers": ["a", "b"], "Bindings": []}))
    assert names.names_only and [layer.name for layer in names.layers] == ["a", "b"]
    for rubbish in ("", "[]", "{}", '{"Layers": 3}', '{"Layers": [3]}', "NaN{"):
        with pytest.raises(EngineError, match="cannot be read"):
            parse_engine(rubbish)


def test_layers_and_tensors_find_their_way_back() -> None:
    tensors = {"c": ModelTensor("conv", (1, 4)), "r": ModelTensor("relu", (1, 4)), "m": ModelTensor("mm", (1, 4)),
               "y": ModelTensor("add", (1, 4), "float32")}  # fmt: skip
    found = LayerMap(parse_engine(json.dumps(OLD)), tensors)
    assert [(item.nodes, item.how) for item in found.layers] == [
        (("conv", "relu"), How.METADATA), (("conv", "relu"), How.PRODUCER), (("mm", "add"), How.METADATA),
    ]  # fmt: skip
    assert [item.layer.name for item in found.layers_of("add")] == ["gemm_myl0_1"]
    assert found.tensor("r").candidates == ("r",) and found.tensor("r_myl0_3 [profile 1]").candidates == ("r",)
    both = found.tensor("__mye1", (1, 4))
    assert both.candidates == ("m", "y") and both.ambiguous and both.how is How.GROUP
    assert found.tensor("__mye1", (1, 4), "float16").candidates == ("m",)
    assert found.tensor("__mye1", (9,)).how is How.UNKNOWN and not found.tensor("stranger").candidates


@hypothesis.given(st.text("abc/_.01", min_size=1), st.integers(0, 99), st.integers(0, 99))
def test_what_the_engine_hangs_on_to_a_name_is_taken_off(name: str, k: int, i: int) -> None:
    for ending in ("", f"_myl{k}", f"_myl{k}_{i}", f".{k}_{i}_myl{k}", f" [profile {i}]"):
        assert model_name(name + ending, {name}) == name
    assert not model_name(f"{name}x_myl{k}", {name})


def test_capabilities_are_what_the_manifests_say() -> None:
    assert MANIFESTS
    for path in MANIFESTS:
        held = json.loads(path.read_text())

        def members(name: str, held: dict[str, Any] = held) -> set[str]:
            kind = held["classes"].get(name, {})
            return {m for part in kind.values() if isinstance(part, dict) for m in part}

        lacking = [
            one for one in CAPABILITIES
            if (one.path.partition(".")[0] not in held["classes"])
            or ("." in one.path and one.path.partition(".")[2] not in members(one.path.partition(".")[0]))
        ]  # fmt: skip
        assert not [one for one in lacking if one.needed]
        assert all("build_route" in one.path for one in lacking) and bool(lacking) == ("10.16" in path.name)


def test_what_is_lacking_is_named_with_its_version() -> None:
    class Flag:
        STRONGLY_TYPED = 0

    old = SimpleNamespace(__version__="10.9", NetworkDefinitionCreationFlag=Flag)
    assert capabilities(old) == {"NetworkDefinitionCreationFlag.STRONGLY_TYPED"}
    with pytest.raises(EngineError, match=r"TensorRT 10\.9 lacks IExecutionContext\.execute_async_v3 and \d+ more"):
        require(old)


def test_dims_ranges_and_routes(tmp_path: Path) -> None:
    assert profiles.parse_dims("N=4;SEQ=1..128,H=1..4..8") == {"N": (4, 4, 4), "SEQ": (1, 128, 128), "H": (1, 4, 8)}
    for bad in ("N", "N=", "N=a", "N=1..2..3..4", "N=5..1", "=3"):
        with pytest.raises(BadOptionError):
            profiles.parse_dims(bad)
    with pytest.raises(BadOptionError, match="'N' is given twice"):
        profiles.parse_dims("N=1;H=2,N=3")
    span = profiles.Range((2, 4), (2, 4), (2, 4)).widened((5, 1))
    assert (
        (span.least, span.best, span.most) == ((2, 1), (2, 4), (5, 4)) and span.holds((3, 3)) and not span.holds((3,))
    )
    assert parse_route("-a=x;kgen:b=1") == {"a": "x", "kgen:b": "1"} and route_text({"a": "x"}) == "-a=x"
    (tmp_path / "r.json").write_text('{"a": "x"}')
    assert parse_route(str(tmp_path / "r.json")) == {"a": "x"}
    (tmp_path / "p.json").write_text('{"x": [1, 2], "s": {"min": [1], "max": [3]}}')
    assert profiles.read_ranges(tmp_path / "p.json")["s"] == profiles.Range((1,), (3,), (3,))
    (tmp_path / "p.json").write_text('{"x": {"min": [4], "max": [3]}}')
    with pytest.raises(BadOptionError, match="no sizes of inputs"):
        profiles.read_ranges(tmp_path / "p.json")


def test_ranges_widen_but_shapes_are_taken_as_they_are() -> None:
    one = profiles.fitted({}, {"x": (2, 4)}, {"x": False}, {})
    assert one == {"x": profiles.Range((2, 4), (2, 4), (2, 4))}
    wide = profiles.fitted(one, {"x": (5, 1)}, {"x": False}, {})
    assert wide == {"x": profiles.Range((2, 1), (2, 4), (5, 4))}
    assert profiles.fitted(wide, {"x": (3, 3)}, {"x": False}, {}) == wide
    # A reshape to (3, 4) and one to (4, 3) make no reshape to (3, 3).
    both = profiles.fitted({"s": profiles.Range((3, 4), (3, 4), (3, 4))}, {"s": (4, 3)}, {"s": True}, {})
    assert both == {"s": profiles.Range((4, 3), (4, 3), (4, 3))}
    given = {"x": profiles.Range((1,), (1,), (2,))}
    assert profiles.fitted(given, {"x": (9,)}, {"x": False}, given) == given  # it is for the engine to refuse


def test_memory_of_the_host_is_aligned_and_given_back() -> None:
    heap = HostHeap()
    address = heap.alloc(5)
    assert address % 256 == 0
    ctypes.memset(address, 7, 5)
    heap.free(address)
    with pytest.raises(KeyError):
        heap.free(address)


def test_pins_are_read_and_followed(tmp_path: Path) -> None:
    place = tmp_path / "pins.json"
    place.write_text('{"0xAB": "0x0F", "0xcd": {"tactic": "0x1", "kernel": "k", "nodes": ["n"]}}')
    assert timing_cache.read_pins(place) == [Pin("0xab", "0xf"), Pin("0xcd", "0x1", "k", ("n",))]
    for bad in ("[]", '{"key": "0x1"}', '{"0x1": "tactic"}', '{"0x1": {}}', "{"):
        place.write_text(bad)
        with pytest.raises(BadOptionError):
            timing_cache.read_pins(place)
    entries = {key: CacheEntry(tactic, 1.0) for key, tactic in (("0xa", "0x1"), ("0xb", "0x2"))}
    check_followed(entries, entries, [Pin("0xa", "0x1")], strict=True)
    moved = {**entries, "0xb": CacheEntry("0x9", 1.0)}
    grown = {**entries, "0xc": CacheEntry("0x3", 1.0)}
    for after, pins, strict, status in (
        (moved, [], False, BuildStatus.NOT_APPLIED),
        (entries, [Pin("0xa", "0x7")], False, BuildStatus.NOT_APPLIED),
        (grown, [], True, BuildStatus.CACHE_MISS),
    ):
        with pytest.raises(BuildFailure) as failed:
            check_followed(entries, after, pins, strict=strict)
        assert failed.value.status is status and cache_not_followed(str(failed.value))
    check_followed(entries, grown, [Pin("0xa", "0x1")], strict=False)  # neighbours may be timed


def test_the_engine_is_asked_for_the_pinned_kernel() -> None:
    text = json.dumps(OLD)
    check_kernels(
        text, [Pin("0x1", "0x5", "k1", ("conv",)), Pin("0x2", "0x5"), Pin("0x3", "0x5", "k9", ("elsewhere",))]
    )
    check_kernels(text, [Pin("0x1", "0xab", "another name", ("conv", "relu"))])
    with pytest.raises(BuildFailure, match=r"was pinned to k2, and layer conv \+ relu has k1"):
        check_kernels(text, [Pin("0x1", "0x5", "k2", ("conv",))])
    check_kernels("garbage", [Pin("0x1", "0x5", "k2", ("conv",))])


def test_the_address_of_a_build_changes_with_what_it_depends_on(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"model")
    (tmp_path / "w").write_bytes(b"weights")
    (tmp_path / "c").write_bytes(b"cache")
    span = {"x": profiles.Range((1,), (1,), (2,))}

    def address(options: BuildOptions | None = None, ranges: Any = span, shown: Any = (), version: str = "1",
                device: DeviceInfo = DEVICE) -> str:  # fmt: skip
        return build_address(
            tmp_path / "m.onnx",
            [tmp_path / "w"],
            options or BuildOptions(),
            ranges,
            shown=shown,
            version=version,
            device=device,
        )

    first = address()
    assert first == address(BuildOptions(save_cache=tmp_path / "elsewhere"))
    assert first == address(BuildOptions(workspace=build_request.DEFAULT_WORKSPACE))
    other = [address(BuildOptions(level=2)), address(BuildOptions(tf32=False)), address(ranges={}),
             address(shown=("h",)), address(version="2"), address(device=dataclasses.replace(DEVICE, name="H")),
             address(BuildOptions(cache=tmp_path / "c")), address(BuildOptions(route={"a": "x"}))]  # fmt: skip
    (tmp_path / "c").write_bytes(b"other")
    other.append(address(BuildOptions(cache=tmp_path / "c")))
    (tmp_path / "w").write_bytes(b"weight!")
    other.append(address())
    assert len({first, *other}) == len(other) + 1


def test_a_small_device_gets_less_workspace() -> None:
    assert BuildOptions().workspace_on(DEVICE) == 4 << 30
    assert BuildOptions().workspace_on(DeviceInfo("g", "8.7", 8, 4 << 30, 1, 1)) == 2 << 30
    assert BuildOptions(workspace=5).workspace_on(DEVICE) == 5


def test_values_as_bytes_and_back() -> None:
    for array, number in (
        (np.array([[1.5, 2.0]], np.float32), 1), (np.array([True, False]), 9), (np.array(3, np.int64), 7),
    ):  # fmt: skip
        raw = bytes_of("x", array, number)
        again = value_of(number, array.shape, raw)
        assert again.dtype == array.dtype and again.shape == array.shape and (again == array).all()
    four = Buffer.of(np.array([1, -2, 3], ml_dtypes.int4))
    raw = bytes_of("x", four, 22)
    assert (bytes_of("x", np.asarray(four), 22) == raw).all()
    assert raw.nbytes == 2 and np.asarray(value_of(22, (3,), raw)).tolist() == [1, -2, 3]
    assert bytes_of("x", np.array([1, 2], np.int64), 6).view(np.int32).tolist() == [1, 2]
    for value, number, words in (
        (np.array([1 << 40]), 6, "beyond the engine's int32"),
        (np.array([1.0], np.float32), 6, "is float32, and the engine reads int32"),
        (four, 1, "is int4, and the engine reads float32"),
        (np.array(["text"], object), 1, "tensors of numbers only"),
        ([np.zeros(1)], 1, "is list"),
    ):
        with pytest.raises(EngineError, match=words):
            bytes_of("x", value, number)


def test_names_and_types_for_the_parser(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (y) { h = Neg (x) y = Neg (h) }'
    model = onnx.parser.parse_model(text)
    model.graph.node[0].name = model.graph.node[1].name = "twice"
    onnx.save(model, str(tmp_path / "m.onnx"))
    fitted = onnx.load_from_string(bytes_for_parser(tmp_path / "m.onnx") or b"")
    assert [node.name for node in fitted.graph.node] == ["twice", "twice_1"]
    assert fitted.graph.output[0].type.tensor_type.elem_type == 1
    onnx.save(fitted, str(tmp_path / "m.onnx"))
    assert bytes_for_parser(tmp_path / "m.onnx") is None


def test_outputs_that_are_inputs_and_doubles_are_found_in_the_file(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (double[N] x, float[2] z) => (double[N] y, float[2] z, e)
        <double[N] h> { h = Neg (x) y = Neg (h) e = Neg (z) }"""
    place = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), str(place))
    assert passed_through(place) == {"z"} and double_tensors(place) == {"y", "h"}
    fitted = onnx.load_from_string(bytes_for_parser(place) or b"")
    assert [value.name for value in fitted.graph.output] == ["y", "e"]
    again = onnx.load(str(place))
    del again.graph.output[0], again.graph.output[1]
    onnx.save(again, str(place))
    with pytest.raises(EngineError, match=r"nothing to compute in m\.onnx"):
        bytes_for_parser(place)


def test_what_is_no_node_is_not_called_one() -> None:
    issue = ParseIssue("UNSUPPORTED_NODE_DATATYPE", "no such type.", "x", "", -1, (), "")
    assert issue.sentence == "'x' is refused with UNSUPPORTED_NODE_DATATYPE: no such type"


def test_errors_of_cuda_stick_or_pass() -> None:
    assert not CudaError("cudaMalloc", 2, "out of memory").sticks
    assert CudaError("cudaMalloc", 2, "out of memory").ending is Ending.OUT_OF_MEMORY
    assert CudaError("cudaMemcpyAsync", 1, "invalid argument").ending is Ending.REFUSED
    assert CudaError("cudaStreamSynchronize", 700, "illegal address").ending is Ending.CRASHED


def test_a_document_about_another_content_is_none(tmp_path: Path) -> None:
    place = tmp_path / "a.engine"
    record.write_engine(place, b"plan", {"schema": record.SCHEMA, "tables": [1]}, "address")
    assert record.address_of(place) == "address" and "tables" not in record.read_beside(place)
    place.write_bytes(b"plan of another")
    assert not record.address_of(place) and not record.read_beside(place)


def test_one_tensor_is_held_at_a_time_and_errors_are_kept() -> None:
    class Base:
        pass

    trt = SimpleNamespace(
        IDebugListener=Base,
        TensorLocation=SimpleNamespace(HOST="host", DEVICE="device"),
        DataType=SimpleNamespace(FLOAT="float"),
    )
    alive: list[weakref.ref[Any]] = []
    held: list[int] = []
    memory: Any = SimpleNamespace(stream_sync=lambda _: None)

    def sink(shown: Shown) -> None:
        alive.append(weakref.ref(shown.value))
        held.append(sum(ref() is not None for ref in alive))
        if shown.name == "bad":
            raise ValueError("no")

    source = np.arange(6, dtype=np.float32)
    listener = make_listener(trt, memory, sink)
    for name in ("a", "b", "b", "bad", "c"):
        assert listener.process_debug_tensor(source.ctypes.data, "host", "float", (2, 3), name, 0)
    assert held == [1] * 5 and listener.count == 4 and str(listener.error) == "no"
    listener.process_debug_tensor(source.ctypes.data, "host", "of a kind nobody knows", (2, 3), "d", 0)
    assert str(listener.error) == "no"  # the first error is the one that is told
    listener.begin()
    assert listener.error is None and listener.count == 0
