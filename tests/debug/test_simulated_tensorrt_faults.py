"""Planted faults of the simulated TensorRT: each shows under its conditions, and only there, in any process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.simulated_tensorrt import assemble, drive, installed, models
from tests.simulated_tensorrt.device_memory import CudaError, device
from tests.simulated_tensorrt.plan import EFFECTS, MODES, Fault, Plan, Where, from_json, write

SHAPES = [{"x": ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}]
X = np.random.default_rng(5).standard_normal((4, 16)).astype(np.float32)
ROOT = Path(__file__).parent.parent.parent


def module(*faults: Fault, **traits: Any) -> Any:
    return assemble.module("11.4", Plan(faults=faults, **traits))


def error(trt: Any, model: onnx.ModelProto | None = None, runs: int = 1, **settings: Any) -> float:
    """The largest difference from a healthy engine built alike, in the last of some runs."""
    model = model or models.mlp()
    results = []
    for one in (trt, module()):
        built = drive.build(one, model, **settings)
        assert built.blob, built.errors
        session = drive.Session(one, built.blob)
        for _ in range(runs):
            made = session.run({"x": X})
        results.append(next(iter(made.values())))
    wrong, right = results
    if np.isnan(wrong).any() or np.isinf(wrong).any():
        return float("inf")
    return float(np.abs(wrong - right).max())


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = Plan(
        faults=(Fault("nan", Where(node="a.*", rank=0), also=Where(kernel="x"), fused_with=("b",), every=3),),
        timing_seed=None,
        aliased=(("y", "x"),),
    )
    variables = write(plan, tmp_path / "plan.json")
    assert from_json(json.loads(Path(variables["SIMULATED_TENSORRT_PLAN"]).read_text())) == plan
    with pytest.raises(ValueError, match="no effect"):
        Fault("no_such")
    with pytest.raises(TypeError):
        from_json({"faults": [{"effect": "nan", "no_such": 1}]})
    assert len(EFFECTS) == len(set(EFFECTS))


@pytest.mark.parametrize("mode", MODES)
def test_wrong_values(mode: str) -> None:
    fault = Fault("wrong_values", Where(node="matmul1"), mode=mode, amount=0.5)
    assert error(module(fault)) > 1e-3


def test_nan_and_overflow() -> None:
    assert error(module(Fault("nan", Where(op="MatMul")))) == float("inf")
    big = models.mlp(1)
    for tensor in big.graph.initializer:
        if tensor.name == "w0":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full((16, 16), 4e4, np.float32), "w0"))
    big.graph.output[0].name = "a0"
    del big.graph.node[2:]
    assert error(module(Fault("fp16_overflow", Where(node="matmul0"))), big) == float("inf")
    assert error(module(Fault("fp16_overflow", Where(node="matmul0")))) < 1e-2


def rows(built: drive.Built) -> list[tuple[str, str]]:
    """(kernel, hash) of the first table, fastest first."""
    lines = [line.split(", ") for line in built.lines]
    start = next(i for i, line in enumerate(lines) if line[-1] == "tunable_parameter")
    table = lines[start + 1 : next(i for i, line in enumerate(lines) if line[0].endswith("(tactic hash"))]
    return [(row[4], row[5].rstrip(",")) for row in table]


@pytest.mark.parametrize("by", ["kernel", "tactic", "rank"])
def test_a_fault_of_a_kernel_goes_with_the_kernel(by: str) -> None:
    table = rows(drive.build(module(), models.mlp(1)))
    where = {"kernel": Where(kernel=table[0][0]), "tactic": Where(tactic=table[0][1]), "rank": Where(rank=0)}[by]
    fault = Fault("wrong_values", where)
    assert error(module(fault), models.mlp(1)) > 1e-4
    results = []
    for trt in (module(fault), module()):
        first = drive.build(trt, models.mlp(1))
        key = next(iter(first.tactics))
        avoid = trt.TimingCacheValue(int(next(h for k, h in table if k != table[0][0]), 16), 0.1)

        def pin(cache: Any, trt: Any = trt, key: str = key, value: Any = avoid) -> None:
            assert cache.update(trt.TimingCacheKey.parse(key), value)

        second = drive.build(trt, models.mlp(1), cache=bytes(first.cache.serialize()), edit=pin)
        results.append(drive.Session(trt, second.blob or b"").run({"x": X})["t0"])
    assert (results[0] == results[1]).all()


def test_a_fault_that_needs_another_layer() -> None:
    pair = Fault("wrong_values", Where(node="matmul1"), also=Where(node="matmul2", rank=0))
    assert error(module(pair)) > 1e-4
    alone = Fault("wrong_values", Where(node="matmul1"), also=Where(node="matmul2", rank=7))
    assert error(module(alone)) == 0


def test_two_faults_compose() -> None:
    first = Fault("wrong_values", Where(node="matmul0"), amount=0.1)
    second = Fault("wrong_values", Where(node="matmul2"), amount=0.1)
    assert error(module(first)) != error(module(first, second)) != error(module(second))


def test_a_fault_of_a_fusion_heals_when_the_group_is_split_or_the_knob_turned() -> None:
    fused = Fault("wrong_values", Where(op="Tanh"), fused_with=("sigmoid1", "tanh1"))

    def split(network: Any) -> None:
        network.mark_debug(network.get_layer(8).get_output(0))

    assert error(module(fused)) > 1e-4
    assert error(module(fused), network=split) == 0
    assert error(module(fused), build_route="-kgen:fuse_pointwise=off") == 0
    assert error(module(fused), builder_optimization_level=0) == 0
    any_fused = Fault("wrong_values", Where(op="Tanh"), fused=True)
    assert error(module(any_fused)) > 1e-4
    assert error(module(any_fused), build_route="-kgen:fuse_pointwise=off") == 0


def test_a_fault_that_a_knob_heals() -> None:
    fault = Fault("wrong_values", Where(node="matmul1"), knob="-copy_ppg=on")
    assert error(module(fault)) > 1e-4
    assert error(module(fault), build_route="-copy_ppg=off") == 0


def test_faults_of_levels_and_flags() -> None:
    assert error(module(Fault("wrong_values", Where(node="matmul1"), level=2))) > 1e-4
    assert error(module(Fault("wrong_values", Where(node="matmul1"), level=4))) == 0
    assert error(module(Fault("wrong_values", Where(node="matmul1"), tf32=True))) == 0
    assert error(module(Fault("wrong_values", Where(node="matmul1"), tf32=True)), tf32=True) > 1e-4


def test_a_fault_of_each_third_run() -> None:
    fault = Fault("wrong_values", Where(node="matmul1"), every=3)
    assert [error(module(fault), runs=runs) > 0 for runs in (1, 2, 3, 4)] == [False, False, True, False]


def test_faults_of_shapes_and_profiles() -> None:
    x = np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)
    shape = module(Fault("wrong_values", Where(node="conv1"), non_opt_shape=True))
    blob = drive.build(shape, models.conv_net(), profiles=SHAPES).blob
    good = drive.build(module(), models.conv_net(), profiles=SHAPES).blob
    assert blob and good
    for size, wrong in ((2, False), (4, True)):
        a = drive.Session(shape, blob).run({"x": x[:size]})["y"]
        b = drive.Session(module(), good).run({"x": x[:size]})["y"]
        assert (a != b).any() == wrong
    second = module(Fault("wrong_values", Where(node="conv1"), profile=1))
    blob = drive.build(second, models.conv_net(), profiles=SHAPES * 2).blob
    assert blob
    a, b = (drive.Session(second, blob, profile=p).run({"x": x})["y"] for p in (0, 1))
    assert np.abs(a - b).max() > 1e-5


def test_refusals_of_builds_and_engines() -> None:
    built = drive.build(module(Fault("build_none", Where(node="matmul1"))), models.mlp())
    assert built.blob is None and "Could not find any implementation for node matmul1" in built.errors[-1]
    assert drive.build(module(Fault("build_none", Where(node="no_such_node"))), models.mlp()).blob
    trt = module(Fault("deserialize_none"))
    with pytest.raises(ValueError, match="refused"):
        drive.Session(trt, drive.build(trt, models.mlp()).blob or b"")
    trt = module(Fault("execute_false", every=2))
    session = drive.Session(trt, drive.build(trt, models.mlp()).blob or b"")
    session.run({"x": X})
    with pytest.raises(RuntimeError, match="refused"):
        session.run({"x": X})


def test_an_error_of_the_device_stays() -> None:
    trt = module(Fault("cuda_error_sticky"))
    session = drive.Session(trt, drive.build(trt, models.mlp()).blob or b"")
    try:
        with pytest.raises(RuntimeError):
            session.run({"x": X})
        with pytest.raises(CudaError, match="719"):
            device().malloc(1)
    finally:
        device().sticky = 0


def test_what_deceives() -> None:
    blob = bytes(drive.build(module(), models.mlp()).cache.serialize())
    assert any(
        "Autotuning" in line for line in drive.build(module(Fault("cache_ignored")), models.mlp(), cache=blob).lines
    )
    cut = drive.build(module(Fault("log_truncated")), models.mlp())
    assert cut.blob and sum("Autotuning" in line for line in cut.lines) < 3
    trt = module(Fault("inspector_garbage"))
    with pytest.raises(json.JSONDecodeError):
        json.loads(drive.Session(trt, drive.build(trt, models.mlp()).blob or b"").information())


def test_a_tactic_that_is_not_applied_is_seen_in_the_inspector() -> None:
    trt = module(Fault("tactic_not_applied"))
    first = drive.build(trt, models.mlp(1))
    second = next(line.split(", ")[5].rstrip(",") for line in reversed(first.lines) if "xmma_gemm" in line)
    key = next(iter(first.tactics))

    def pin(cache: Any) -> None:
        assert cache.update(trt.TimingCacheKey.parse(key), trt.TimingCacheValue(int(second, 16), 0.1))

    pinned = drive.build(trt, models.mlp(1), cache=bytes(first.cache.serialize()), edit=pin)
    assert pinned.tactics[key] == int(second, 16)
    kernel = next(line.split(", ")[4] for line in first.lines if second in line and "xmma" in line)
    layers = json.loads(drive.Session(trt, pinned.blob or b"").information())["Layers"]
    assert layers[0]["TacticName"] != kernel


class _Listening:
    """What a listener got, with what it saw after its callback had returned."""

    def __init__(self, trt: Any, model: onnx.ModelProto, network: Any, **settings: Any) -> None:
        built = drive.build(trt, model, network=network, **settings)
        assert built.blob, built.errors
        self.session = drive.Session(trt, built.blob)
        self.got: list[tuple[str, np.ndarray]] = []
        outer = self

        class Listener(trt.IDebugListener):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.IDebugListener.__init__(self)

            def process_debug_tensor(
                self, addr: int, location: Any, type: Any, shape: Any, name: str, stream: int
            ) -> bool:
                value = np.empty(tuple(shape), trt.nptype(type))
                device().copy(value.ctypes.data, addr, value.nbytes, 2)
                outer.got.append((name, value))
                raise ValueError("swallowed")

        self.listener = Listener()
        assert self.session.context.set_debug_listener(self.listener)


def test_marked_tensors_need_their_state(capfd: pytest.CaptureFixture[str]) -> None:
    def mark(network: Any) -> None:
        assert network.mark_debug(network.get_layer(0).get_output(0))

    heard = _Listening(module(), models.mlp(1), mark)
    heard.session.run({"x": X})
    assert heard.got == []
    assert heard.session.context.set_tensor_debug_state("m0", True)
    assert heard.session.context.get_debug_state("m0")
    heard.session.run({"x": X})
    assert [name for name, _ in heard.got] == ["m0"]
    weights = onnx.numpy_helper.to_array(models.mlp(1).graph.initializer[0])
    np.testing.assert_allclose(heard.got[0][1], X @ weights, rtol=1e-4, atol=1e-5)
    assert "swallowed" in capfd.readouterr().err
    assert not heard.session.context.set_tensor_debug_state("a0", True)


def test_unfused_tensors_have_names_of_the_engine_and_a_state_of_their_own() -> None:
    def mark(network: Any) -> None:
        network.mark_unfused_tensors_as_debug_tensors()

    heard = _Listening(module(), models.mlp(6), mark)
    assert heard.session.context.set_all_tensors_debug_state(True)
    heard.session.run({"x": X})
    assert heard.got == []
    heard.session.context.unfused_tensors_debug_state = True
    assert heard.session.context.unfused_tensors_debug_state
    heard.session.run({"x": X})
    names = [name for name, _ in heard.got]
    layers = json.loads(heard.session.information())["Layers"]
    assert set(names) < {output["Name"] for layer in layers for output in layer["Outputs"]}  # a few are never shown
    assert any("_myl" in name for name in names) and any(name.startswith("__mye") for name in names)
    covering = _Listening(module(all_covers_unfused=True), models.mlp(6), mark)
    covering.session.context.set_all_tensors_debug_state(True)
    covering.session.run({"x": X})
    assert len(covering.got) == len(names)


def test_tensors_in_a_loop_come_again_under_the_same_name() -> None:
    def mark(network: Any) -> None:
        network.mark_unfused_tensors_as_debug_tensors()

    heard = _Listening(module(), models.looped(3), mark)
    heard.session.context.unfused_tensors_debug_state = True
    heard.session.run({"x": X[:2, :3].copy()})
    halved = [value for name, value in heard.got if name == "halved"]
    assert len(halved) == 3
    np.testing.assert_allclose(halved[1], 0.5 * (1.5 * X[:2, :3]), rtol=1e-6)


def test_a_fault_in_a_loop_begins_at_its_trip() -> None:
    def mark(network: Any) -> None:
        network.mark_unfused_tensors_as_debug_tensors()

    x = X[:2, :3].copy()
    fault = Fault("wrong_values", Where(node="halve"), trip=1, amount=1.0)  # twice the value from the second trip on
    heard = _Listening(module(fault), models.looped(3), mark)
    heard.session.context.unfused_tensors_debug_state = True
    outputs = heard.session.run({"x": x})
    halved = [value for name, value in heard.got if name == "halved"]
    for value, times in zip(halved, (0.5, 1.5, 2.5), strict=True):
        np.testing.assert_allclose(value, times * x, rtol=1e-6)
    np.testing.assert_allclose(outputs["y"], 3.5 * x, rtol=1e-6)


def test_a_listener_that_is_never_called() -> None:
    def mark(network: Any) -> None:
        network.mark_debug(network.get_layer(0).get_output(0))

    heard = _Listening(module(Fault("listener_never_called")), models.mlp(1), mark)
    heard.session.context.set_all_tensors_debug_state(True)
    heard.session.run({"x": X})
    assert heard.got == []


# other processes


def process(
    profile: str, plan: Plan, tmp_path: Path, code: str, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(installed(profile)), str(ROOT)])
    variables = write(plan, tmp_path / "plan.json")
    start = "import tensorrt as trt, numpy as np; from tests.simulated_tensorrt import drive, models\n"
    return subprocess.run(
        [sys.executable, "-c", start + code],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.parametrize("profile", ["10.16", "11.4"])
def test_the_plan_reaches_another_process_and_stays_in_the_engine(profile: str, tmp_path: Path) -> None:
    plan = Plan(faults=(Fault("nan", Where(node="matmul1")),))
    file = tmp_path / "engine"
    code = f"open({str(file)!r}, 'wb').write(drive.build(trt, models.mlp()).blob)"
    assert process(profile, plan, tmp_path, code).returncode == 0
    code = f"session = drive.Session(trt, open({str(file)!r}, 'rb').read())\n"
    code += "print(np.isnan(session.run({'x': np.ones((4, 16), 'f')})['t2']).any())"
    assert process(profile, Plan(), tmp_path, code).stdout.split() == ["True"]


BUILD = "drive.build(trt, models.mlp())"
RUN = "drive.Session(trt, drive.build(trt, models.mlp()).blob).run({'x': np.ones((4, 16), 'f')})"


@pytest.mark.parametrize(("effect", "code"), [("build_crash", BUILD), ("execute_crash", RUN)])
def test_crashes(effect: str, code: str, tmp_path: Path) -> None:
    assert process("11.4", Plan(faults=(Fault(effect),)), tmp_path, code).returncode == -signal.SIGABRT


@pytest.mark.parametrize(("effect", "code"), [("build_hang", BUILD), ("execute_hang", RUN)])
def test_hangs(effect: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        process("11.4", Plan(faults=(Fault(effect),)), tmp_path, "print('begun', flush=True)\n" + code, timeout=3)
    assert b"begun" in (caught.value.stdout or b"")


def test_the_runtime_of_cuda_is_simulated_too(tmp_path: Path) -> None:
    code = """
from cuda.bindings import runtime as cuda
x = np.arange(6, dtype=np.float32); y = np.zeros(6, np.float32)
error, address = cuda.cudaMalloc(x.nbytes); assert int(error) == 0
error, stream = cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)
kind = cuda.cudaMemcpyKind
assert cuda.cudaMemcpyAsync(address, x.ctypes.data, x.nbytes, kind.cudaMemcpyHostToDevice, stream) == (0,)
assert cuda.cudaMemcpyAsync(y.ctypes.data, address, y.nbytes, kind.cudaMemcpyDeviceToHost, stream) == (0,)
assert not y.any()
assert cuda.cudaStreamSynchronize(stream) == (0,) and (x == y).all()
assert cuda.cudaMemcpy(y.ctypes.data, address + 8, y.nbytes, kind.cudaMemcpyDeviceToHost) == (700,)
assert cuda.cudaMalloc(1)[0] == 700 and cuda.cudaGetLastError() == (700,) == cuda.cudaPeekAtLastError()
assert cuda.cudaGetErrorString(cuda.cudaError_t(700))[1]
print(cuda.cudaGetDeviceProperties(0)[1].name.decode())
"""
    done = process("11.4", Plan(device="Mine"), tmp_path, code)
    assert done.stdout.strip() == "Mine", done.stderr
    code = "from cuda.bindings import runtime as cuda; print(int(cuda.cudaGetDeviceCount()[0]))"
    assert process("11.4", Plan(devices=0), tmp_path, code).stdout.strip() == "100"
