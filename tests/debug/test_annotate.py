from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.annotate import NodeNote, annotate, remove_annotations
from surgeon_passes.errors import BadModelError, BadOptionError, FileError
from surgeon_passes.graph import load
from surgeon_passes.save import Weights, save
from tests.numeric import assert_same_values

ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
TEXT = """<ir_version: {ir}, opset_import: ["" : 17, "local" : 1]>
    g (float[N, 3] x, bool c) => (float[N, 3] y, float[N, 3] z, int64[N, K] at)
    <float[3] w = {{1, 2, 3}}> {{
        scaled = Mul (x, w)
        y = If (c) <
            then_branch = t () => (float[N, 3] a) {{ inner = Neg (scaled)  a = Abs (inner) }},
            else_branch = e () => (float[N, 3] a) {{ a = Relu (scaled) }}
        >
        z = local.Twice (scaled)
        top, at = TopK <axis = 1> (scaled, two)
    }}
    <domain: "local", opset_import: ["" : 17]> Twice (v) => (r) {{ r = Add (v, v) }}"""


def write(folder: Path, ir: int = 8) -> Path:
    text = TEXT.format(ir=ir).replace("<float[3] w", "<int64[1] two = {2}, float[3] w")
    proto = onnx.parser.parse_model(text)
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}/{node.op_type}"
        node.doc_string = "from the exporter"
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="file.py")
    proto.metadata_props.add(key="author", value="hand")
    onnx.checker.check_model(proto)
    onnx.save(proto, str(folder / "m.onnx"))
    return folder / "m.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path)


def props(message: object) -> dict[str, str]:
    return {entry.key: entry.value for entry in message.metadata_props if entry.key.startswith("surgeon.")}  # type: ignore[attr-defined]


def all_nodes(proto: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Every node by its first output and the graph it is in."""
    found = {}
    stack: list[tuple[str, object]] = [("", proto.graph), *((f.name, f) for f in proto.functions)]
    while stack:
        where, graph = stack.pop()
        for node in graph.node:  # type: ignore[attr-defined]
            found[f"{where}{node.output[0]}"] = node
            stack += [(f"{a.name}/", a.g) for a in node.attribute if a.HasField("g")]
    return found


NOTES = [
    NodeNote("scaled", {"verdict": "wrong", "introduced": "0.29", "reason": "310 times what float16 explains é"}),
    NodeNote("at", {"verdict": "right"}),
    NodeNote("inner", {"verdict": "suspect"}),
    NodeNote("/y/If/else_branch/a", {"surgeon.verdict": "right"}),
    NodeNote("r", {"floor": "1e-7"}),
    NodeNote("", {"ratio": "3"}, node="/z/Twice"),
]


@pytest.mark.parametrize("ir", [3, 4, 7, 8, 9, 10, 12])
def test_nodes_carry_their_notes_and_values_stay(tmp_path: Path, ir: int) -> None:
    if ir < 8:  # older models have no functions, and list initializers among their inputs
        opset = {3: 8, 4: 9, 7: 13}[ir]
        given = ", float[3] w" if ir < 4 else ""
        text = f'<ir_version: {ir}, opset_import: ["" : {opset}]> g (float[2, 3] x{given}) => (float[2, 3] y)'
        proto = onnx.parser.parse_model(
            f"{text} <float[3] w = {{1, 2, 3}}> {{ scaled = Mul (x, w)  y = Relu (scaled) }}"
        )
        onnx.save(proto, str(tmp_path / "m.onnx"))
        path, notes = tmp_path / "m.onnx", NOTES[:1]
    else:
        path, notes = write(tmp_path, ir), NOTES
    before, bytes_before = onnx.load(str(path)), path.read_bytes()
    done = annotate(path, notes, tmp_path / "out.onnx", summary={"verdict": "differ", "starts": "/scaled/Mul"})
    assert (done.nodes, done.unmatched) == (len(notes), ())
    after = onnx.load(str(tmp_path / "out.onnx"))
    onnx.checker.check_model(after, full_check=True)
    assert after.ir_version == ir
    assert_same_values(before, after, dims={"N": 2, "K": 2})
    assert props(after) == {"surgeon.verdict": "differ", "surgeon.starts": "/scaled/Mul"}
    nodes = all_nodes(after)
    assert props(nodes["scaled"]) == {
        "surgeon.verdict": "wrong",
        "surgeon.introduced": "0.29",
        "surgeon.reason": "310 times what float16 explains é",
    }
    if ir >= 8:
        assert props(nodes["top"]) == {"surgeon.verdict": "right"}
        assert props(nodes["then_branch/inner"]) == {"surgeon.verdict": "suspect"}
        assert props(nodes["else_branch/a"]) == {"surgeon.verdict": "right"}
        assert props(nodes["then_branch/a"]) == {}
        assert props(nodes["Twicer"]) == {"surgeon.floor": "1e-7"}
        assert props(nodes["z"]) == {"surgeon.ratio": "3"}
    assert path.read_bytes() == bytes_before


def test_everything_else_stays_and_all_can_be_removed(model: Path, tmp_path: Path) -> None:
    annotate(model, NOTES, tmp_path / "out.onnx", summary={"verdict": "differ"})
    after = onnx.load(str(tmp_path / "out.onnx"))
    for node in after.graph.node:
        assert node.doc_string == "from the exporter"
        assert ("pkg.torch.onnx.stack_trace", "file.py") in [(p.key, p.value) for p in node.metadata_props]
    done = remove_annotations(tmp_path / "out.onnx", tmp_path / "back.onnx")
    assert done.nodes == len(NOTES)
    save(load(model), tmp_path / "plain.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()
    assert remove_annotations(model, tmp_path / "back.onnx").nodes == 0


def test_new_notes_replace_the_old_ones(model: Path, tmp_path: Path) -> None:
    annotate(model, NOTES, tmp_path / "one.onnx", summary={"verdict": "differ"})
    annotate(tmp_path / "one.onnx", [NodeNote("z", {"verdict": "right"})], tmp_path / "two.onnx")
    after = onnx.load(str(tmp_path / "two.onnx"))
    assert props(after) == {}
    assert {name: props(node) for name, node in all_nodes(after).items() if props(node)} == {
        "z": {"surgeon.verdict": "right"}
    }


def test_two_outputs_of_a_node_keep_both_their_notes(model: Path, tmp_path: Path) -> None:
    notes = [NodeNote(name, {"verdict": name}) for name in ("top", "at")]
    assert annotate(model, notes, tmp_path / "out.onnx").nodes == 1
    after = all_nodes(onnx.load(str(tmp_path / "out.onnx")))
    assert props(after["top"]) == {"surgeon.verdict": "top", "surgeon.verdict:at": "at"}


def test_names_that_fit_no_node_or_several_are_reported(model: Path, tmp_path: Path) -> None:
    notes = [NodeNote(name, {"verdict": "x"}) for name in ("nothing", "x", "w", "a", "nothing", "z")]
    notes += [NodeNote("", {"verdict": "x"}, node="/no/Node"), NodeNote("gone", {"verdict": "x"}, node="/y/If")]
    done = annotate(model, notes, tmp_path / "out.onnx")
    assert done.unmatched == ("nothing", "x", "w", "a", "/no/Node")
    assert done.nodes == 2


def test_odd_text(model: Path, tmp_path: Path) -> None:
    annotate(model, [NodeNote("z", {"reason": "half \ud83d\nline", "empty": ""})], tmp_path / "out.onnx")
    after = all_nodes(onnx.load(str(tmp_path / "out.onnx")))
    assert props(after["z"]) == {"surgeon.reason": "half \\ud83d\nline", "surgeon.empty": ""}
    for key in ("", "surgeon."):
        with pytest.raises(BadOptionError, match="needs a key"):
            annotate(model, [NodeNote("z", {key: ""})], tmp_path / "out.onnx")


def test_bad_files_are_one_sentence(model: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="never modified"):
        annotate(model, NOTES, model)
    with pytest.raises(FileError, match="folder does not exist"):
        annotate(model, NOTES, tmp_path / "no" / "out.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not that")
    with pytest.raises(BadModelError, match="the file is not ONNX"):
        annotate(tmp_path / "bad.onnx", NOTES, tmp_path / "out.onnx")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Path]]:
    """200 MB of weights in 5 MatMuls, inside the model file and outside."""
    row = np.random.default_rng(0).standard_normal(3200, np.float32)
    weights = [np.roll(row, i)[None] * np.arange(3200, dtype=np.float32)[:, None] for i in range(5)]
    nodes = [onnx.helper.make_node("MatMul", [f"t{i}", f"w{i}"], [f"t{i + 1}"]) for i in range(5)]
    infos = [onnx.helper.make_tensor_value_info(name, 1, [1, 3200]) for name in ("t0", "t5")]
    initializers = [onnx.numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    graph = onnx.helper.make_graph(nodes, "g", infos[:1], infos[1:], initializers)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    paths = {external: tmp_path_factory.mktemp("large") / "m.onnx" for external in (False, True)}
    onnx.save(proto, str(paths[False]))
    onnx.save(proto, str(paths[True]), save_as_external_data=True, location="m.data")
    yield paths
    for path in paths.values():
        shutil.rmtree(path.parent)


def digests(path: Path) -> list[bytes]:
    return [hashlib.sha256(t.raw_data).digest() for t in onnx.load(str(path)).graph.initializer]


@pytest.mark.parametrize(("external", "beside"), [(False, True), (True, True), (True, False)])
def test_weights_are_streamed_or_stay(large: dict[bool, Path], tmp_path: Path, external: bool, beside: bool) -> None:
    path = large[external]
    out = (path.parent if beside else tmp_path) / "out.onnx"
    script = f"""
import resource
from pathlib import Path
from surgeon_debug.annotate import NodeNote, annotate
from surgeon_passes.graph import load
from surgeon_passes.save import Weights, save
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
done = annotate({str(path)!r}, [NodeNote("t3", {{"verdict": "wrong"}})], {str(out)!r})
assert done.nodes == 1
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENV)
    assert int(done.stdout) < 40  # MiB; the weights have 195
    files = {file.name: file.stat().st_size for file in out.parent.iterdir()}
    stays = external and beside
    assert ("out.onnx.data" in files) == (external and not stays)
    assert files["out.onnx"] < 10_000 or not external
    after = onnx.load(str(out), load_external_data=False)
    assert props(after.graph.node[2]) == {"surgeon.verdict": "wrong"}
    if stays:
        assert {e.value for t in after.graph.initializer for e in t.external_data if e.key == "location"} == {"m.data"}
    assert digests(out) == digests(path)


def test_weights_go_where_they_are_wanted(tmp_path: Path) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((40, 40), np.float32), "w")
    infos = [onnx.helper.make_tensor_value_info(name, 1, [40]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", infos[:1], infos[1:])
    graph.initializer.append(weight)
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "m.onnx"))
    note = NodeNote("y", {"verdict": "right"})
    done = annotate(tmp_path / "m.onnx", [note], tmp_path / "out.onnx", weights=Weights.EXTERNAL)
    assert [file.name for file in done.files] == ["out.onnx.data", "out.onnx"]
    assert annotate(tmp_path / "out.onnx", [note], tmp_path / "in.onnx", weights=Weights.INLINE).files == (
        tmp_path / "in.onnx",
    )
    assert digests(tmp_path / "in.onnx") == digests(tmp_path / "m.onnx")


def test_many_nodes_take_linear_time(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name=f"n{i}") for i in range(20_000)]
    infos = [onnx.helper.make_tensor_value_info(name, 1, [3]) for name in ("t0", "t20000")]
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", infos[:1], infos[1:])), str(tmp_path / "m.onnx")
    )
    notes = [NodeNote(f"t{i}", {"verdict": "right", "introduced": "1e-7"}) for i in range(20_001)]
    done = annotate(tmp_path / "m.onnx", notes, tmp_path / "out.onnx")
    assert done.nodes == 20_000 and done.unmatched == ("t0",)
