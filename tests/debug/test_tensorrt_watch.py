"""TensorRT, watched while it runs: nothing is kept, what goes wrong in a look is told, and loops are looked into."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import surgeon_debug.ladder_runs
from surgeon_debug.feeds import make_feeds
from surgeon_debug.ladder import LadderVerdict, Step
from surgeon_debug.ladder_runs import Runs
from surgeon_debug.layers import compare_models
from surgeon_debug.model_tensors import tensors_of
from surgeon_debug.observe_ladder import climb
from surgeon_debug.pair import LayerOptions
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.tensorrt import watch
from surgeon_debug.seen_tensor import from_text
from surgeon_debug.verdict import Verdict
from surgeon_passes.errors import BadOptionError
from surgeon_passes.graph import load
from surgeon_passes.spec import quote
from tests.debug.tensorrt_places import net, play
from tests.simulated_tensorrt.models import looped, weights
from tests.simulated_tensorrt.plan import Fault, Where

ONCE = LayerOptions(isolate=False, whole=False, follow=False)


def watched(folder: Path, model: Path, options: str) -> str:
    """The text of a watch, and its files."""
    feeds = make_feeds(load(model), seed=0, sample=0, dims=None)
    golden, listed = folder / "net.golden", folder / "tensors.json"
    compare_models(model, target="onnxruntime", feeds=[feeds], layers=ONCE, save_reference=golden)
    tensors_of(model, feeds, ONCE, allow_external=False).listed.write(listed)
    runner = quote(f"tensorrt:tf32=false,{options}")
    return f"{watch.__file__}:Watch:runner={runner},golden={quote(str(golden))},tensors={quote(str(listed))}"


def test_one_tensor_is_in_memory_at_a_time() -> None:
    """Of the engine; the reference's are mapped from their file where they are not small."""
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-m", "tests.bench.bench_ladder", "96", "8"]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120).stdout
    assert re.search(r", 16 tensors\n", said), said
    assert "at most 1 tensors, 98,304 bytes, in memory at a time" in said


def test_marked_tensors_are_looked_at_and_not_kept(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, hidden_share=0.0)
    model = net(tmp_path)
    with make_engine(watched(tmp_path, model, "observe=debug"), isolated=True, timeout=60) as engine:
        engine.prepare(model, ["y", "a", "c", watch.SEEN])
        for run in range(2):
            found = engine.run(make_feeds(load(model), seed=0, sample=0, dims=None))
            looks = from_text(str(found.pop(watch.SEEN)[0]))
            assert list(found) == ["y"]
            assert [(look.name, look.how, look.choices, look.run) for look in looks] == [
                ("a", "name", 1, run),
                ("c", "name", 1, run),
            ]
            assert all(look.rel_l2 < 1e-6 for look in looks)


def test_only_tensorrt_is_watched(tmp_path: Path) -> None:
    with pytest.raises(BadOptionError, match="only tensorrt does"):
        watch.Watch("onnxruntime", tmp_path / "a", tmp_path / "b")


def test_what_goes_wrong_in_a_look_is_told(new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node="/c"), amount=0.2), hidden_share=0.0)
    failing = tmp_path / "failing.py"
    failing.write_text(
        "from surgeon_debug.runners.tensorrt import watch\n\n\nclass Watch(watch.Watch):\n"
        "    def _look(self, shown):\n        raise MemoryError('no room for ' + shown.name)\n"
    )
    monkeypatch.setattr(surgeon_debug.ladder_runs, "WATCH", failing)
    found = climb(net(tmp_path), target="tensorrt:tf32=false", timeout=60).ladder
    assert found is not None and found.verdict is LadderVerdict.UNKNOWN and not found.rows
    assert "could not be looked at" in found.words and "no room for" in found.words
    play(monkeypatch, tmp_path, hidden_share=0.0)
    done = climb(net(tmp_path), target="tensorrt:tf32=false", timeout=60)
    assert done.ladder is not None and done.ladder.verdict is LadderVerdict.RIGHT and done.verdict == "agree"
    assert "could not be looked at" in done.ladder.words


def loop(folder: Path) -> Path:
    """A product, and a loop of five iterations that reads it."""
    proto = looped(5)
    proto.graph.node.insert(0, onnx.helper.make_node("MatMul", ["x0", "w"], ["x"], name="before"))
    proto.graph.input[0].name = "x0"
    proto.graph.initializer.append(weights("w", 3, 3))
    onnx.save(proto, str(folder / "loop.onnx"))
    return folder / "loop.onnx"


def test_tensors_in_loops_are_held_against_the_same_iteration(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, hidden_share=0.0)
    done = climb(loop(tmp_path), target="tensorrt:tf32=false", timeout=60)
    found = done.ladder
    assert found is not None and found.verdict is LadderVerdict.RIGHT and not done.notes
    rows = {row.title: row for row in found.rows}
    assert rows["loop/body/halved"].nodes == ("loop/body/halve",) and rows["loop/body/halved"].error is not None
    rung = found.rung(Step.UNFUSED)
    assert rung is not None
    assert [look.occurrence for look in rung.looks if look.name == "halved" and look.compared] == [0, 1, 2, 3, 4]


def test_iterations_that_were_not_kept_are_counted(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node="before"), amount=0.2), hidden_share=0.0)
    done = climb(loop(tmp_path), target="tensorrt:tf32=false", timeout=60, layers=LayerOptions(iterations=2, inner=1))
    found = done.ladder
    assert found is not None and found.nodes == ("before",)
    verdicts = {row.name: row.verdict for row in found.rows}
    assert verdicts["halved"] is Verdict.INHERITS and verdicts["next"] is Verdict.SKIPPED
    (note,) = [note for note in done.notes if "inside bodies" in note]
    assert note.startswith("1 tensor") and "--iterations" in note and "--pieces" in note
    assert [note for note in done.notes if note.startswith("of 1 tensor inside loops the first 2 iterations")]


def test_a_wrong_loop_is_located(new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, Fault("wrong_values", Where(node="loop"), amount=0.2), hidden_share=0.0)
    found = climb(loop(tmp_path), target="tensorrt:tf32=false", timeout=60).ladder
    assert found is not None and found.nodes == ("loop",) and found.alone
    assert np.isclose(next(row.error for row in found.rows if row.title == "y" and row.error), 0.2, rtol=0.1)


def test_files_of_the_whole_engine_are_not_written_again(tmp_path: Path) -> None:
    model = net(tmp_path)
    watched(tmp_path, model, "debug=unfused")
    feeds = make_feeds(load(model), seed=0, sample=0, dims=None)
    tensors = tensors_of(model, feeds, ONCE, allow_external=False)
    target = "tensorrt:engine=my.engine,save_cache=my.cache,record=my,pins=p.json,strict=true,level=2,timeout=5"

    def runs(text: str) -> Runs:
        golden = tmp_path / "net.golden"
        return Runs(text, model, ["y"], golden, tensors.listed, tmp_path, made_up=True, timeout=None, memory_cap=None)

    made = runs(target)
    assert made.text(Step.WHOLE) == (
        "tensorrt:save_cache=my.cache,record=my,engine=my.engine,pins=p.json,strict=true,level=2"
    )
    for step, more in (
        (Step.UNFUSED, "debug=unfused"),
        (Step.MARKED, "observe=debug"),
        (Step.OUTPUTS, "observe=output"),
    ):
        text = made.text(step)
        assert "my" not in text.replace(str(tmp_path), "") and "strict" not in text and "pins" not in text
        assert text.startswith("tensorrt:level=2,editable=true,record=") and text.endswith(f",{more}")
    assert made.text(Step.PIECE) == "tensorrt:level=2,editable=true"
    plain = runs("tensorrt")
    (tmp_path / "cache").write_bytes(b"")  # what the first build has left
    assert f"cache={tmp_path / 'cache'}" in plain.text(Step.UNFUSED).replace('"', "")
