"""``build``, ``bench`` and ``inspect``, with the simulated TensorRT where it takes one."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from surgeon.report.long_list import print_rows
from tests.debug.tensorrt_places import net, play, saved
from tests.tensorrt_engines import DEVICE

Command = Callable[..., Any]


def test_without_tensorrt_one_sentence_says_what_to_install(surgeon: Command, tmp_path: Path) -> None:
    model, engine = net(tmp_path), tmp_path / "a.engine"
    for said in (
        surgeon("build", model, "-o", engine),
        surgeon("run", model, "--runner", "tensorrt"),
        surgeon("bench", model, "--runner", "tensorrt"),
    ):
        assert said.code == 2 and not said.out
        assert said.err.splitlines()[-1].endswith(
            "runner tensorrt needs the package tensorrt, which is not installed; "
            'run pip install "onnx-surgeon[tensorrt]"'
        )
    assert not engine.exists()


def test_without_a_gpu(surgeon: Command, new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, devices=0)
    said = surgeon("build", net(tmp_path), "-o", tmp_path / "a.engine")
    assert said.code == 2 and "finds no GPU that it can use here" in said.err and "nvidia-smi" in said.err


def test_types_are_no_flags(surgeon: Command, tmp_path: Path) -> None:
    for flag, advice in (
        ("--int8", "quantize the model first"),
        ("--fp8", "quantize"),
        ("--fp16", "convert-precision"),
    ):
        said = surgeon("build", net(tmp_path), "-o", tmp_path / "a.engine", flag)
        assert said.code == 2 and f"{flag[2:]} is no flag but a rewrite" in said.err and advice in said.err


def test_an_engine_is_built_inspected_and_left_as_it_is(surgeon: Command, any_tensorrt: str, tmp_path: Path) -> None:
    model, engine = net(tmp_path), tmp_path / "a.engine"
    first = surgeon("build", model, "-o", engine, "--json")
    assert first.code == 0 and first.document["fresh"] and first.document["bytes"] == engine.stat().st_size
    said = surgeon("build", model, "-o", engine)
    assert said.code == 0 and "was there already" in said.out and "TensorRT 1" in said.out
    told = surgeon("inspect", engine)
    assert told.code == 0 and "built from net.onnx" in told.out and "input  x (float32 2x8)" in told.out
    listed = surgeon("inspect", engine, "--layers").out
    assert "/a" in listed and (any_tensorrt == DEVICE or ("/a, /b" in listed and "gemm" in listed))
    (tmp_path / "a.engine.json").unlink()  # then TensorRT itself is asked
    again = surgeon("inspect", engine)
    assert again.code == 0 and "input  x (float32 2x8)" in again.out and "built from" not in again.out
    engine.write_bytes(b"nothing of the kind")
    broken = surgeon("inspect", engine)
    assert broken.code == 2 and "cannot load the engine" in broken.err


def test_sizes_that_nobody_gives(surgeon: Command, any_tensorrt: str, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y) { y = Neg (x) }'
    model, engine = saved(tmp_path, text), tmp_path / "a.engine"
    said = surgeon("build", model, "-o", engine)
    assert said.code == 2 and "the sizes of x are open (N); add --dims N=1..4..8" in said.err
    said = surgeon("build", model, "-o", engine, "--dims", "M=1")
    assert said.code == 2 and "no input has a dimension called 'M'; they are N" in said.err
    said = surgeon("build", model, "-o", engine, "--dims", "N=1..2..8")
    assert said.code == 0 and "input x: from, best and to 1x4, 2x4, 8x4" in said.out


def test_a_pinned_build_follows_its_cache_or_is_refused(surgeon: Command, any_tensorrt: str, tmp_path: Path) -> None:
    model, engine, cache = net(tmp_path), tmp_path / "a.engine", tmp_path / "a.cache"
    assert surgeon("build", model, "-o", engine, "--pin").code == 2
    assert "does not exist" in surgeon("build", model, "-o", engine, "--pin", "--timing-cache", cache).err
    said = surgeon("build", model, "-o", engine, "--timing-cache", cache)
    assert said.code == 0 and re.search(r"(\d+) tactics, \1 of them timed now", said.out)
    content = cache.read_bytes()
    said = surgeon("build", model, "-o", tmp_path / "b.engine", "--timing-cache", cache, "--pin")
    assert said.code == 0 and re.search(r"all \d+ tactics are those of the timing cache", said.out)
    drifts = surgeon("build", model, "-o", tmp_path / "c.engine", "--timing-cache", cache, "--pin", "--no-tf32")
    assert drifts.code == 2 and "the timing cache was not followed: cache miss" in drifts.err
    assert cache.read_bytes() == content and not (tmp_path / "c.engine").exists()


def test_two_caches_are_compared_by_op_and_kernel(
    surgeon: Command, new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, caches = net(tmp_path), [tmp_path / "a.cache", tmp_path / "b.cache"]
    for seed, cache in zip((0, 3), caches, strict=True):
        play(monkeypatch, tmp_path, timing_seed=seed, timing_noise=0.5)
        assert surgeon("build", model, "-o", tmp_path / f"{seed}.engine", "--timing-cache", cache).code == 0
    same = surgeon("inspect", caches[0], caches[0])
    assert same.code == 0 and "the same 2 tactics" in same.out
    said = surgeon("inspect", *caches, "--json")
    assert said.code == 1 and not said.document["equal"] and said.document["changed"]
    change = said.document["changed"][0]
    assert change["nodes"] and change["before_kernel"].startswith("sm") and change["before"] != change["after"]
    assert "with another tactic" in surgeon("inspect", *caches).out
    for cache in caches:
        cache.with_name(f"{cache.name}.json").unlink()  # what the caches tell by themselves: keys and hashes
    bare = surgeon("inspect", *caches, "--json")
    assert bare.code == 1 and {c["key"] for c in bare.document["changed"]} == {
        c["key"] for c in said.document["changed"]
    }
    wrong = surgeon("inspect", caches[0], model)
    assert wrong.code == 2 and "only two timing caches can be compared" in wrong.err


def test_ten_thousand_layers_and_tactics(surgeon: Command, tmp_path: Path) -> None:
    def written(name: str, content: bytes, document: dict[str, Any]) -> Path:
        (tmp_path / name).write_bytes(content)
        whole = {**document, "digest": hashlib.sha256(content).hexdigest(), "versions": {"tensorrt": "11.4"}}
        (tmp_path / f"{name}.json").write_text(json.dumps(whole))
        return tmp_path / name

    names = [f"/model/layer.{i}/conv" for i in range(10_000)]
    layers = [
        {
            "name": n,
            "kind": "gemm",
            "nodes": [n],
            "kernel": "k",
            "tactic": "",
            "origin": "",
            "inputs": [],
            "outputs": [],
        }
        for n in names
    ]
    engine = written("a.engine", b"a", {"schema": "surgeon.tensorrt.build/1", "layers": layers})
    caches = []
    for k, other in enumerate((0, 5)):
        tactics = {f"0x{i:032x}": hex(1 + (i < other)) for i in range(len(names))}
        tables = [
            {"op": n, "key": key, "nodes": [n], "rows": [["slow", "0x2", 2.0, "", ""], ["fast", "0x1", 1.0, "", ""]],
             "chosen": tactics[key], "dialect": "editable", "runner": "", "cached": True}
            for n, key in zip(names, tactics, strict=True)
        ]  # fmt: skip
        document = {"schema": "surgeon.tensorrt.cache/1", "tactics": tactics, "tables": tables}
        caches.append(written(f"{k}.cache", bytes([k]), document))
    assert len(surgeon("inspect", engine, "--layers").out.splitlines()) > 10_000
    said = surgeon("inspect", *caches, "--json").document
    assert said["same"] == 9_995 and [c["op"] for c in said["changed"]] == names[:5]
    assert (said["changed"][0]["before_kernel"], said["changed"][0]["after_kernel"]) == ("fast", "slow")


def test_what_lies_beside_is_read_without_what_makes_engines(
    surgeon: Command, new_tensorrt: str, tmp_path: Path
) -> None:
    cache = tmp_path / "a.cache"
    assert surgeon("build", net(tmp_path), "-o", tmp_path / "a.engine", "--timing-cache", cache).code == 0
    heavy = ["onnx", "onnx_ir", "sympy", "onnxruntime", "tensorrt", "surgeon_debug.compare", "surgeon_debug.cell"]
    for files in (["a.engine"], ["a.cache"], ["a.cache", "a.cache"]):
        code = "import sys; from surgeon import cli; code = cli.run(['inspect', *sys.argv[1:]]); "
        code += f"sys.exit(str(code) if code else str([name for name in {heavy} if name in sys.modules]))"
        done = subprocess.run([sys.executable, "-c", code, *files], cwd=tmp_path, capture_output=True, text=True)
        assert done.stderr.strip() == "[]", done.stderr


def test_three_engines_in_one_table(surgeon: Command, any_tensorrt: str, tmp_path: Path) -> None:
    arguments = ("--seconds", "0.05", "--warmup", "0.01", "--runs", "3", "--streams", "2", "--layers")
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    def prepare(self, model, outputs): raise OSError('no way')\n    def run(self, feeds): ...\n"
    )
    mine = f"{tmp_path / 'mine.py'}:Mine"
    runners = ("--runner", "onnxruntime", "--runner", "tensorrt", "--runner", mine)
    said = surgeon("bench", net(tmp_path), *runners, *arguments, "--json")
    assert said.code == 0
    ort, trt = said.document["results"]
    assert [ort["resident"], trt["resident"]] == [False, True] and trt["runs"] >= 6
    assert 0 < trt["least"] <= trt["percentiles"]["p50"] <= trt["percentiles"]["p99"] <= trt["most"]
    for result in (ort, trt):
        assert result["layers"] and all(row["seconds"] > 0 for row in result["layers"])
    assert any_tensorrt == DEVICE or "/a_myl0_0" in [row["layer"] for row in trt["layers"]]
    failed = said.document["failed"][0]
    assert failed["runner"] == mine and "no way" in failed["reason"]
    assert surgeon("bench", net(tmp_path), "--runner", mine, *arguments).code == 2


def test_rows_fit_beside_each_other() -> None:
    import io

    from rich.console import Console

    console = Console(width=40, file=io.StringIO())
    print_rows(console, ("name", "kind"), [("a" * 60, "b\x1b[31m"), ("short", "c" * 50)])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= 40 for line in text.splitlines()) and "\x1b" not in text and "..." in text
