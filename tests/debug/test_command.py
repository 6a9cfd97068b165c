from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine
from surgeon_debug.values import same
from surgeon_passes.errors import BadOptionError, EngineError

ORDINARY = """
import sys, numpy as np, onnxruntime as ort
model, inputs, outputs = sys.argv[1:4]
session = ort.InferenceSession(model)
names = [output.name for output in session.get_outputs()]
np.savez(outputs, **dict(zip(names, session.run(names, dict(np.load(inputs))))))
"""

ECHO = """
import json, sys, shutil, zipfile, numpy as np
inputs, outputs, names = sys.argv[2:5]
told = json.load(open(names))
given = np.load(inputs)
kept = {}
for i, (entry, wanted) in enumerate(zip(told["inputs"], told["outputs"])):
    assert wanted["member"] == f"output_{i}" and list(given[entry["member"]].shape) is not None
    kept[wanted["member"]] = given[entry["member"]]
np.savez(outputs, **kept)
shutil.copy(names, "told.json")
"""


def engine_of(folder: Path, script: str, *, more: str = "", isolated: bool = False) -> Engine:
    (folder / "a script.py").write_text(script)
    line = f"{sys.executable} {shlex.quote(str(folder / 'a script.py'))} {{model}} {{inputs}} {{outputs}} {{names}}"
    quoted = line.replace("\\", "\\\\").replace('"', '\\"')
    return make_engine(f'command:run="{quoted}"{more}', isolated=isolated)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3] x) => (float[N, 3] y) {
        h = Add (x, x)
        y = Abs (h)
    }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "/block.0/add: h"
    onnx.save(proto, str(tmp_path / "my model.onnx"))
    return tmp_path / "my model.onnx"


@pytest.mark.parametrize("isolated", [False, True])
def test_a_command_computes_every_tensor_wanted(tmp_path: Path, model: Path, isolated: bool) -> None:
    x = np.array([[1, -2, 3]], np.float32)
    with engine_of(tmp_path, ORDINARY, isolated=isolated) as engine:
        engine.prepare(model, ["y", "/block.0/add: h"])
        found = engine.run({"x": x})
        np.testing.assert_array_equal(found["/block.0/add: h"], 2 * x)
        np.testing.assert_array_equal(found["y"], np.abs(2 * x))
        engine.prepare(model, ["y"])
        assert list(engine.run({"x": x})) == ["y"]


def test_names_and_types_survive_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bf = np.array([[1, 2], [3, 4]]).astype(ml_dtypes.bfloat16)
    sent: dict[str, Any] = {
        "/a/b:0": np.arange(3, dtype=np.int64),
        "file": np.float16([1.5]),
        "x.npy": np.array(True),
        "": np.zeros((0, 2), np.float64),
        "a\0b": np.array([1 + 2j], np.complex64),
        "\udcff": np.array([7], np.uint8),
        "é": np.array(["text", "é"], object),
        "a" * 300: np.float32([[1]]),
    }
    names = [f"out{i}" for i in range(len(sent))]
    with engine_of(tmp_path, ECHO) as engine:
        engine._model, engine._wanted = "m.onnx", frozenset(names)
        engine.runner.prepare(tmp_path / "m.onnx", names)
        found = engine.run(sent)
        for name, value in zip(names, sent.values(), strict=True):
            assert same(found[name], np.asarray(value)), name
        engine.runner.prepare(tmp_path / "m.onnx", names)
        engine.run({"b": bf, "i": np.array([1, -2, 3]).astype(ml_dtypes.int4), "s": [bf[0], np.ones(2)]})
    told = json.loads((tmp_path / "told.json").read_text())["inputs"]
    assert [(t["name"], t["member"], t["type"], t["shape"]) for t in told] == [
        ("b", "b", "bfloat16", [2, 2]),
        ("i", "i", "int4", [3]),
        ("s", "s[0]", "bfloat16", [2]),
        ("s", "s[1]", "double", [2]),
    ]


def test_outputs_in_types_that_numpy_cannot_save(tmp_path: Path, model: Path) -> None:
    save = """
import sys, numpy as np, ml_dtypes
kind = {kind}
h = {{f"/block.0/add: h[{{i}}]": np.ones(i + 1) for i in range(2)}}
np.savez(sys.argv[3], y=np.array([[1, 2]]).astype(kind), **h)
"""
    for kind in ("ml_dtypes.bfloat16", "np.float16"):
        with engine_of(tmp_path, save.format(kind=kind)) as engine:
            engine.prepare(model, ["y", "/block.0/add: h"])
            found = engine.run({"x": np.zeros((1, 3), np.float32)})
            assert found["y"].dtype.name == kind.split(".")[1] and found["y"].tolist() == [[1, 2]]
            assert [len(item) for item in found["/block.0/add: h"]] == [1, 2]
    lost = {"float8_e4m3fn": "the type of 'y' got lost in the command's outputs", "float8_e5m2": "cannot be read"}
    for kind, words in lost.items():
        with engine_of(tmp_path, save.format(kind=f"ml_dtypes.{kind}")) as engine:
            engine.prepare(model, ["y"])
            with pytest.raises(EngineFailure, match=f"{words}.*; write what numpy has no type for as float32"):
                engine.run({"x": np.zeros((1, 3), np.float32)})


@pytest.mark.parametrize(
    ("script", "ending", "words"),
    [
        ("import sys; print('x' * 300_000); sys.exit('no licence\\nfor this device\\n')", Ending.REFUSED,
         "the command failed with exit code 1: for this device"),
        ("import os; os._exit(7)", Ending.REFUSED, "failed with exit code 7: it said nothing"),
        ("import os, sys; print('only this'); sys.stdout.flush(); os._exit(7)", Ending.REFUSED, "code 7: only this"),
        ("import os; os.abort()", Ending.CRASHED, "the command was ended by SIGABRT"),
        ("pass", Ending.REFUSED, r"ended well and wrote no outputs; it has to write to \{outputs\}"),
        ("import sys; open(sys.argv[3], 'w').write('rubbish')", Ending.REFUSED, "that the command wrote cannot be"),
        ("import sys, numpy as np; np.savez(sys.argv[3], y=np.array([None]))", Ending.REFUSED, "read: Object arrays"),
        ("import time; time.sleep(60)", Ending.HUNG, "hung while running my model.onnx: nothing came within 2 s"),
    ],
)  # fmt: skip
def test_a_command_that_fails(tmp_path: Path, model: Path, script: str, ending: Ending, words: str) -> None:
    more = ",timeout=2" if ending is Ending.HUNG else ""
    with engine_of(tmp_path, script, more=more) as engine:
        engine.prepare(model, ["y"])
        with pytest.raises(EngineFailure, match=words) as caught:
            engine.run({"x": np.zeros((1, 3), np.float32)})
        assert caught.value.ending is ending and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("command", "runner command needs the option 'run'; write command:run=VALUE"),
        ("command:run=tool {inputs} {outputs}", r"does not say where \{model\} goes; write run="),
        ("command:run=tool {model}", r"does not say where \{outputs\} goes"),
        ("command:run=tool 'a {model} {outputs}", "cannot be read: No closing quotation"),
    ],
)
def test_a_command_that_cannot_be_meant(text: str, words: str) -> None:
    with pytest.raises(BadOptionError, match=words):
        make_engine(text)


def test_a_program_that_is_not_there(model: Path) -> None:
    engine = make_engine("command:run=no-such-program {model} {outputs}")
    with pytest.raises(EngineError, match="there is no program 'no-such-program' to run"):
        engine.prepare(model, ["y"])
