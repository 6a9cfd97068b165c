from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from surgeon_debug.feeds import make_feeds
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine, Runner, words_of
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_debug.runners.self_test import available_runners, self_test
from surgeon_debug.values import normalise
from surgeon_passes.errors import BadOptionError, EngineError
from surgeon_passes.graph import load

HERE = Path(__file__).parent
USER = f"{HERE / 'wrong_runner.py'}"
OPENVINO = importlib.util.find_spec("openvino") is not None
RUNNERS = ["onnxruntime", "onnxruntime:optimize=none,threads=1", "reference"] + ["openvino"] * OPENVINO

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}> {
        product = MatMul (x, w)
        half = Relu (product)
        y = Neg (half)
    }"""


def saved(folder: Path, text: str = TEXT) -> Path:
    proto = onnx.parser.parse_model(text)
    onnx.checker.check_model(proto)
    onnx.save(proto, str(folder / "model.onnx"))
    return folder / "model.onnx"


@pytest.mark.parametrize("text", RUNNERS)
def test_inner_tensors_come_by_name_and_the_model_is_left_alone(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()
    x = np.array([[1, -1, 0.5, 2], [0, 3, -2, 1]], np.float32)
    with make_engine(text) as engine:
        engine.prepare(path, ["half", "y", "nowhere"])
        found = engine.run({"x": x})
        assert set(found) == {"half", "y"}  # a name that the model lacks is missing, not replaced
        w = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
        np.testing.assert_allclose(found["half"], np.maximum(x @ w, 0), rtol=1e-6)
        np.testing.assert_allclose(found["y"], -np.maximum(x @ w, 0), rtol=1e-6)
        engine.prepare(path, ["product"])
        np.testing.assert_allclose(engine.run({"x": x})["product"], x @ w, rtol=1e-6)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("text", RUNNERS)
def test_external_weights_in_a_folder_below(tmp_path: Path, text: str) -> None:
    proto = onnx.parser.parse_model(TEXT)
    w = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(w, "w"))
    (tmp_path / "weights").mkdir()
    onnx.save(
        proto, str(tmp_path / "m.onnx"), save_as_external_data=True, location="weights/w.bin", size_threshold=0,
        convert_attribute=False,
    )  # fmt: skip
    with make_engine(text) as engine:
        engine.prepare(tmp_path / "m.onnx", ["y", "product"])
        x = np.eye(4, dtype=np.float32)
        np.testing.assert_allclose(engine.run({"x": x})["product"], w, rtol=1e-6)


NARROW = {
    "bfloat16": (ml_dtypes.bfloat16, 16),
    "float8e4m3fn": (ml_dtypes.float8_e4m3fn, 17),
    "float8e5m2": (ml_dtypes.float8_e5m2, 19),
    "int4": (ml_dtypes.int4, 22),
    "uint4": (ml_dtypes.uint4, 21),
    "float16": (np.float16, 10),
}


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize("text", RUNNERS)
def test_types_numpy_lacks_go_in_and_come_out_as_numbers(tmp_path: Path, text: str, kind: str) -> None:
    dtype, number = NARROW[kind]
    sequences = "openvino" not in text  # it has none as outputs
    path = saved(
        tmp_path,
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[3, 3] x, {kind}[3] given) => (float[3, 3] y, float[3] z{", seq(float[3, 3]) s" * sequences}) {{
            narrow = Cast <to = {number}> (x)
            y = Cast <to = 1> (narrow)
            z = Cast <to = 1> (given)
            {"s = SequenceConstruct (x, y)" * sequences}
        }}""",
    )
    x = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 1]], np.float32)
    given = np.array([1, 3, 5]).astype(dtype)
    with make_engine(text) as engine:
        engine.prepare(path, ["narrow", "y", "z"] + ["s"] * sequences)
        found = engine.run({"x": x, "given": given})
    assert found["narrow"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found["narrow"].astype(np.float32), x)
    np.testing.assert_array_equal(found["z"], [1, 3, 5])
    if sequences:
        assert len(found["s"]) == 2


@pytest.mark.parametrize("text", ["onnxruntime", "reference"])
def test_text_sequences_and_absent_optionals(tmp_path: Path, text: str) -> None:
    path = saved(
        tmp_path,
        """<ir_version: 8, opset_import: ["" : 18]>
        g (string[2] words, seq(float[2]) s, float[2] f) => (string[2] same, seq(float[2]) more) {
            same = Identity (words)
            more = SequenceInsert (s, f)
        }""",
    )
    one = np.ones(2, np.float32)
    with make_engine(text) as engine:
        engine.prepare(path, ["same", "more"])
        found = engine.run({"words": normalise(np.array(["a", "é"])), "s": [one], "f": 2 * one})
    assert found["same"].tolist() == ["a", "é"] and found["same"].dtype == object
    assert [item.tolist() for item in found["more"]] == [[1, 1], [2, 2]]


@pytest.mark.parametrize("text", RUNNERS)
def test_a_scalar_stays_a_scalar(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path, '<ir_version: 8, opset_import: ["" : 17]> g (float x) => (float y) { y = Neg (x) }')
    with make_engine(text) as engine:
        engine.prepare(path, ["y"])
        assert engine.run({"x": np.asarray(2.0, np.float32)})["y"].shape == ()


def test_onnxruntime_takes_a_newer_ir_version(tmp_path: Path) -> None:
    path = saved(tmp_path)
    proto = onnx.load(str(path))
    proto.ir_version = 99
    path.write_bytes(proto.SerializeToString())
    with make_engine("onnxruntime") as engine:
        engine.prepare(path, ["y", "half"])
        assert set(engine.run({"x": np.zeros((1, 4), np.float32)})) == {"y", "half"}


def test_onnxruntime_options_reach_the_session(tmp_path: Path) -> None:
    engine = make_engine("onnxruntime:optimize=none,threads=2,deterministic=yes,config.session.disable_prepacking=1")
    engine.prepare(saved(tmp_path), ["y"])
    options = engine.runner._session.get_session_options()  # type: ignore[attr-defined]
    assert options.intra_op_num_threads == 2 and options.use_deterministic_compute
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    assert options.graph_optimization_level.name == "ORT_DISABLE_ALL"


def test_onnxruntime_takes_any_session_option(tmp_path: Path) -> None:
    engine = make_engine(
        "onnxruntime:option.enable_cpu_mem_arena=false,option.execution_mode=ORT_PARALLEL,option.inter_op_num_threads=2,"
        'option.logid="a,b"'
    )
    engine.prepare(saved(tmp_path), ["y"])
    options = engine.runner._session.get_session_options()  # type: ignore[attr-defined]
    assert not options.enable_cpu_mem_arena and options.execution_mode.name == "ORT_PARALLEL"
    assert options.inter_op_num_threads == 2 and options.logid == "a,b"
    for text, words in {
        "option.execution_mode=PARALLEL": "option.execution_mode cannot be 'PARALLEL'; use one of ORT_SEQUENTIAL",
        "option.enable_cpu_mem_arena=perhaps": "option.enable_cpu_mem_arena=perhaps is neither true nor false",
        "option.arena=1": "SessionOptions has no 'arena'; it has .*enable_cpu_mem_arena",
        "option.add_provider=1": "SessionOptions has no 'add_provider'",
    }.items():
        with pytest.raises(BadOptionError, match=words):
            make_engine(f"onnxruntime:{text}")


def test_options_of_a_provider_reach_it(tmp_path: Path) -> None:
    path = saved(tmp_path)
    for key in ("provider.nonsense", "provider.cpu.nonsense"):
        engine = make_engine(f"onnxruntime:{key}=7")
        engine.prepare(path, ["y"])
        session = engine.runner._session  # type: ignore[attr-defined]
        assert session.get_provider_options() == {"CPUExecutionProvider": {}}  # which takes none
        assert engine.runner._provider_options == [{"nonsense": "7"}]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("providers", "options", "environment", "precision"),
    [
        (["CPUExecutionProvider"], [{}], "", None),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], [{}, {}], "", "tf32"),
        (["CUDAExecutionProvider"], [{"use_tf32": "0"}], "", None),
        (["CUDAExecutionProvider"], [{"use_tf32": "1"}], "0", None),
        (["TensorrtExecutionProvider", "CUDAExecutionProvider"], [{"trt_fp16_enable": "True"}, {}], "", "float16"),
        (["TensorrtExecutionProvider"], [{"trt_fp16_enable": "1", "trt_bf16_enable": "1"}], "", "bfloat16"),
        (["TensorrtExecutionProvider"], [{"trt_fp16_enable": "0"}], "", "tf32"),
    ],
)
def test_what_onnxruntime_computes_in(
    monkeypatch: pytest.MonkeyPatch,
    providers: list[str],
    options: list[dict[str, str]],
    environment: str,
    precision: str | None,
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", environment)
    runner = make_engine("onnxruntime").runner
    monkeypatch.setattr(runner, "_providers", providers)
    monkeypatch.setattr(runner, "_provider_options", options)
    assert runner.precision == precision  # type: ignore[attr-defined]


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", ["", "<axis = 0>", "<axis = 2>", "<axis = -2>"])
def test_the_reference_knows_the_older_softmax(tmp_path: Path, op: str, axis: str) -> None:
    path = saved(
        tmp_path,
        f'<ir_version: 6, opset_import: ["" : 11]> g (float[2,3,4] x) => (float[2,3,4] y) {{ y = {op}{axis} (x) }}',
    )
    feeds = make_feeds(load(path))
    found = []
    for text in ("reference", "onnxruntime:optimize=none"):
        with make_engine(text) as engine:
            engine.prepare(path, ["y"])
            found.append(engine.run(feeds)["y"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_the_reference_takes_an_unsorted_graph(tmp_path: Path) -> None:
    path = saved(tmp_path)
    proto = onnx.load(str(path))
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    onnx.save(proto, str(path))
    with make_engine("reference") as engine:
        engine.prepare(path, ["y"])
        assert engine.run({"x": np.zeros((1, 4), np.float32)})["y"].shape == (1, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("onnxrt", "did you mean 'onnxruntime'"),
        ("nothing", r"the runners are .*, reference, tensorrt, or FILE\.py:CLASS"),
        ("onnxruntime:optimise=none", "did you mean 'optimize'.*its options: providers, optimize, threads"),
        ("onnxruntime:config=1", "no option 'config'"),
        ("onnxruntime:optimize=fast", "none, basic, extended, layout, all"),
        ("onnxruntime:provider=1", "no option 'provider'.*provider.KEY"),
        ("onnxruntime:threads=two", "threads=two is not a number"),
        ("onnxruntime:deterministic=perhaps", "neither true nor false"),
        ("onnxruntime:threads=-1", "not a number of threads"),
        ("onnxruntime:providers=gpu", "no execution provider 'gpu'"),
        ("onnxruntime:threads", "is not an option"),
        ("reference:x=1", "its options: none"),
        (f"{HERE / 'no_such_file.py'}:X", "no such file"),
        (USER, "names no class"),
        (f"{USER}:Wrogn", "has no class 'Wrogn'; it has Wrong"),
        (f"{USER}:NoRun", "has no method run"),
        (f"{USER}:Needy", "needs the option 'port'"),
        (f"{USER}:Wrong:gain=much", "gain=much is not a number"),
        (f"{USER}:Wrong:grain=2", "did you mean 'gain'"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_sentence(text: str, words: str) -> None:
    with pytest.raises(BadOptionError, match=words) as caught:
        make_engine(text)
    assert "\n" not in str(caught.value)


def test_a_users_file_with_options_and_rest() -> None:
    runner = make_engine(f'{USER}:Needy:port=80,host="a,b",other.key=x').runner
    assert (runner.port, runner.host, runner.rest) == (80, "a,b", {"other.key": "x"})  # type: ignore[attr-defined]
    assert isinstance(runner, Runner)


def test_the_value_of_an_option_may_be_a_python_file() -> None:
    found, _ = parse_runner("onnxruntime:library=/x/ops.py,threads=1")
    assert (found.name, found.file, dict(found.options)) == (
        "onnxruntime",
        "",
        {"library": "/x/ops.py", "threads": "1"},
    )
    assert parse_runner("./mine.py:key=1")[0].file == "./mine.py"


def test_a_users_file_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import nothing_of_that_name")
    with pytest.raises(BadOptionError, match=r"bad\.py: cannot be imported.*nothing_of_that_name"):
        make_engine(f"{tmp_path / 'bad.py'}:X")


def test_a_users_file_may_import_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_a_metric.py").write_text("WHAT = 7")
    (tmp_path / "mine.py").write_text(
        "import dataclasses, neighbour_of_a_metric\n@dataclasses.dataclass\nclass Mine:\n"
        "    what: int = neighbour_of_a_metric.WHAT\n"
        "    def prepare(self, model_path, outputs): ...\n    def run(self, feeds): return {}\n"
    )
    assert make_engine(f"{tmp_path / 'mine.py'}:Mine").runner.what == 7  # type: ignore[attr-defined]


@pytest.mark.skipif(not OPENVINO, reason="openvino is not installed")
def test_openvino_refuses_what_it_would_silently_change(tmp_path: Path) -> None:
    with pytest.raises(BadOptionError, match="f32, f16, bf16"):
        make_engine("openvino:precision=half")
    with pytest.raises(EngineError, match="no device 'TPU' here; it has"):
        make_engine("openvino:device=TPU")
    text = '<ir_version: 8, opset_import: ["" : 17]> g (string[2] x) => (string[2] y) { y = Identity (x) }'
    path = saved(tmp_path, text)
    with pytest.raises(EngineError, match="crashes on text"):
        make_engine("openvino").prepare(path, ["y"])
    assert make_engine("openvino:precision=f16").precision == "float16"
    assert make_engine("openvino").precision is None


def test_a_provider_that_is_not_there_is_never_replaced() -> None:
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("there is CUDA here")
    with pytest.raises(EngineError, match="does not contain CUDAExecutionProvider"):
        make_engine("onnxruntime:providers=cuda;cpu")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("prepare", "Broken cannot prepare model.onnx: the device is on fire"),
        ("run", r"Broken failed while running model.onnx: KeyError: 'missing' \(wrong_runner.py, line \d+\)"),
        ("type", "returned list from run; return a dict"),
    ],
)
def test_a_runner_that_fails_is_an_engine_error(tmp_path: Path, how: str, words: str) -> None:
    with make_engine(f"{USER}:Broken:how={how}") as engine, pytest.raises(EngineError, match=words):
        engine.label = "Broken"
        engine.prepare(saved(tmp_path), ["y"])
        engine.run({})


def test_tensors_nobody_asked_for_are_dropped(tmp_path: Path) -> None:
    with make_engine(f"{USER}:Broken:how=not") as engine:
        engine.prepare(saved(tmp_path), ["y"])
        assert engine.run({}) == {}


def test_the_words_of_an_engine_are_kept_and_its_noise_is_not(tmp_path: Path) -> None:
    with make_engine("onnxruntime:optimize=none") as engine:
        with pytest.raises(EngineError) as caught:
            engine.prepare(saved(tmp_path), ["y"])
            engine.run({"x": np.zeros((1, 5), np.float32)})
        assert "index: 1 Got: 5 Expected: 4" in str(caught.value)
        assert "ONNXRuntimeError" not in str(caught.value) and "\n" not in str(caught.value)
    assert words_of(RuntimeError("")) == "RuntimeError"
    assert len(words_of(RuntimeError("x " * 1000))) <= 240


def test_every_runner_here_works_and_a_wrong_one_is_caught() -> None:
    found = {status.name: status for status in available_runners()}
    assert {"onnxruntime", "openvino", "reference"} <= set(found)
    for status in found.values():
        assert status.works == (status.reason == "")
    assert found["onnxruntime"].works and found["reference"].works
    assert found["onnxruntime"].version == importlib.metadata.version("onnxruntime")
    with pytest.raises(EngineError, match="computes a two-node model wrongly: 'product' is off"):
        self_test(make_engine(f"{USER}:Wrong:tensor=product"))
    with pytest.raises(EngineError, match="did not deliver tensor 'product'"):
        self_test(make_engine(f"{USER}:Wrong:lose=product"))


def test_a_runner_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r'pip install "onnx-surgeon\[openvino\]"'):
        make_engine("openvino")


def test_a_runner_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, value, dist = "theirs", "their_package:Their", None

        def load(self) -> type:
            from tests.debug.wrong_runner import Wrong

            return Wrong

    def entry_points(group: str, name: str = "") -> list[Entry]:
        return [Entry()] if name in ("", "theirs", "reference") else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert make_engine("theirs:gain=2").runner.gain == 2.0  # type: ignore[attr-defined]
    with pytest.raises(
        BadOptionError, match="two runners are called 'reference': their_package:Their and surgeon_debug"
    ):
        make_engine("reference")


def test_an_engine_around_an_object(tmp_path: Path) -> None:
    from tests.debug.wrong_runner import Wrong

    engine = Engine("mine", Wrong())
    engine.prepare(saved(tmp_path), ["y"])
    assert engine.run({"x": np.zeros((1, 4), np.float32)})["y"].shape == (1, 4)


def test_a_model_that_was_overwritten_is_read_anew(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with make_engine("onnxruntime") as engine:
        engine.prepare(path, ["half"])
        saved(tmp_path, TEXT.replace("half", "other"))
        engine.prepare(path, ["half", "other"])
        assert set(engine.run({"x": np.zeros((1, 4), np.float32)})) == {"other"}


@pytest.mark.parametrize(("opset", "node"), [(13, "m = ReduceMean <axes = [1]> (x)"), (18, "m = ReduceMean (x, axes)")])
def test_the_reference_adds_up_narrow_numbers_in_float32(tmp_path: Path, opset: int, node: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]> g (bfloat16[2,1024] x) => (bfloat16[2,1] m)
        <int64[1] axes = {{1}}> {{ {node} }}"""
    onnx.save(onnx.parser.parse_model(text), str(tmp_path / "m.onnx"))
    with make_engine("reference") as engine:
        engine.prepare(tmp_path / "m.onnx", ["m"])
        found = engine.run({"x": np.full((2, 1024), 1.0, ml_dtypes.bfloat16)})["m"]
    # Added up in bfloat16, the sum would stop at 256.
    assert found.dtype == ml_dtypes.bfloat16 and float(found[0, 0]) == 1.0
