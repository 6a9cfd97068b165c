"""What becomes of builds: endings, timing caches and pins that must be followed, routes, kept engines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.tensorrt.failures import builder_refused, cache_not_followed
from surgeon_debug.runners.tensorrt.tactic_log import TacticTable
from tests.debug.tensorrt_places import net, play, run, saved, x
from tests.simulated_tensorrt.plan import Fault, Where
from tests.tensorrt_engines import DEVICE


@pytest.mark.parametrize(
    ("effect", "ending", "words"),
    [
        ("build_none", Ending.REFUSED, "cannot build"),
        ("build_crash", Ending.CRASHED, "SIGABRT"),
        ("build_hang", Ending.HUNG, "nothing came within 2 s"),
        ("deserialize_none", Ending.REFUSED, "cannot load the engine"),
        ("execute_false", Ending.REFUSED, "tensorrt did not run"),
        ("execute_crash", Ending.CRASHED, "crashed while running"),
        ("execute_hang", Ending.HUNG, "nothing came within 2 s"),
        ("cuda_error_sticky", Ending.CRASHED, "CUDA failed"),
    ],
)
def test_every_ending_has_its_name(
    new_tensorrt: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effect: str, ending: Ending, words: str
) -> None:
    play(monkeypatch, tmp_path, Fault(effect, Where(op="MatMul")))
    other = saved(
        tmp_path,
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Neg (x) }',
        "other.onnx",
    )
    with make_engine("tensorrt", isolated=True, timeout=2) as engine:
        with pytest.raises(EngineFailure) as failed:
            engine.prepare(net(tmp_path), ["y"])
            engine.run(x())
        assert failed.value.ending is ending and words in str(failed.value), str(failed.value)
        assert builder_refused(str(failed.value)) == (effect == "build_none")
        engine.prepare(other, ["y"])  # whatever it was, the next model gets an engine
        assert engine.run({"x": np.ones(2, np.float32)})["y"].tolist() == [-1, -1]


def test_a_cache_is_kept_loaded_and_followed(each_tensorrt: str, tmp_path: Path) -> None:
    model, place, folder = net(tmp_path), tmp_path / "a.cache", tmp_path / "rec"
    run(model, x(), ["y"], f"editable=true,save_cache={place},record={folder}")
    first = json.loads((folder / "build.json").read_text())
    assert first["tactics"] and first["status"] == "ok" and not first["cache_before"]
    if each_tensorrt != DEVICE:
        assert len(first["tactics"]) == 2
    tables = [TacticTable.from_json(table) for table in first["tables"]]
    assert {table.key: table.chosen for table in tables} == first["tactics"]
    run(model, x(), ["y"], f"cache={place},strict=true,record={folder}")
    again = json.loads((folder / "build.json").read_text())
    assert again["cache_before"] == again["tactics"] == first["tactics"] and not again["tables"]


def test_a_pinned_tactic_is_used(any_tensorrt: str, tmp_path: Path) -> None:
    model, place, folder = net(tmp_path), tmp_path / "a.cache", tmp_path / "rec"
    run(model, x(), ["y"], f"editable=true,save_cache={place},record={folder}")
    table = TacticTable.from_json(json.loads((folder / "build.json").read_text())["tables"][0])
    other = next(row for row in table.rows if row.hash != table.chosen and row.kernel != table.row(table.chosen).kernel)  # type: ignore[union-attr]
    pins = tmp_path / "pins.json"
    pins.write_text(json.dumps({table.key: {"tactic": other.hash, "kernel": other.kernel, "nodes": table.nodes}}))
    run(model, x(), ["y"], f"cache={place},pins={pins},strict=true,record={folder}")
    found = json.loads((folder / "build.json").read_text())
    assert found["pins"] == {table.key: other.hash} and found["tactics"][table.key] == other.hash
    assert other.kernel in [layer["kernel"] for layer in found["layers"]]


def refused(model: Path, options: str, status: str, folder: Path) -> None:
    """A build that ends as an invalid probe, with this status in its record."""
    with pytest.raises(EngineFailure) as failed:
        run(model, x(), ["y"], f"{options},record={folder}")
    assert cache_not_followed(str(failed.value)) and not builder_refused(str(failed.value)), str(failed.value)
    assert json.loads((folder / "build.json").read_text())["status"] == status


def test_caches_that_are_not_followed_are_invalid_probes(any_tensorrt: str, tmp_path: Path) -> None:
    model, place, folder = net(tmp_path), tmp_path / "a.cache", tmp_path / "rec"
    run(model, x(), ["y"], f"editable=true,save_cache={place},record={folder}")
    key = next(iter(json.loads((folder / "build.json").read_text())["tactics"]))
    pins, plain, rubbish = tmp_path / "pins.json", tmp_path / "plain.cache", tmp_path / "rubbish.cache"
    run(model, x(), ["y"], f"save_cache={plain}")
    rubbish.write_bytes(b"nothing of the kind")

    refused(model, f"cache={rubbish}", "cache refused", folder)
    refused(model, f"cache={plain},strict=true", "cache refused", folder)
    refused(model, f"cache={place},strict=true,tf32=false", "cache miss", folder)
    for content, status in (({"0x" + "1" * 32: "0x5"}, "pin refused"), ({key: "0x1234567"}, "pin refused")):
        pins.write_text(json.dumps(content))
        refused(model, f"cache={place},pins={pins}", status, folder)


def test_caches_of_another_device_and_misses_that_slip_through(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, place, folder = net(tmp_path), tmp_path / "a.cache", tmp_path / "rec"
    run(model, x(), ["y"], f"editable=true,save_cache={place},record={folder}")
    play(monkeypatch, tmp_path, misses_let_through=1)
    refused(model, f"cache={place},strict=true,tf32=false", "cache miss", folder)
    play(monkeypatch, tmp_path, device="Another GPU")
    refused(model, f"cache={place}", "cache refused", folder)
    run(model, x(), ["y"], f"cache={place},ignore_mismatch=true")


def test_a_cache_that_is_ignored_is_noticed(
    new_tensorrt: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, place, folder = net(tmp_path), tmp_path / "a.cache", tmp_path / "rec"
    run(model, x(), ["y"], f"editable=true,save_cache={place},record={folder}")
    table = TacticTable.from_json(json.loads((folder / "build.json").read_text())["tables"][0])
    slow = table.rows[-1]
    pins = tmp_path / "pins.json"
    pins.write_text(json.dumps({table.key: {"tactic": slow.hash, "kernel": slow.kernel, "nodes": table.nodes}}))
    for effect in ("cache_ignored", "tactic_not_applied"):
        play(monkeypatch, tmp_path, Fault(effect))
        with pytest.raises(EngineFailure) as failed:
            run(model, x(), ["y"], f"cache={place},pins={pins}")
        assert cache_not_followed(str(failed.value)), (effect, str(failed.value))


def test_routes(each_tensorrt: str, tmp_path: Path) -> None:
    model, folder = net(tmp_path), tmp_path / "rec"
    run(model, x(), ["y"], f"record={folder}")
    if "IBuilderConfig.build_route" in json.loads((folder / "build.json").read_text())["lacking"]:
        assert each_tensorrt != "11.4"
        with pytest.raises(EngineFailure, match=r"has no build routes; they exist since 11\.1"):
            run(model, x(), ["y"], "route=fc_act_fusion=off")
        return
    if each_tensorrt == DEVICE:
        return  # which knobs there are only the device can tell
    counts = []
    for route in ("", ",route=fc_act_fusion=off;kgen:fuse_pointwise=off"):
        run(model, x(), ["y"], f"record={folder}{route}")
        found = json.loads((folder / "build.json").read_text())
        counts.append(max(len(layer["nodes"]) for layer in found["layers"]))
        assert any(option["option"] == "-fc_act_fusion" for option in found["routes"]["tuner_options"])
    assert counts[0] > counts[1] == 1 and found["route"] == "-fc_act_fusion=off -kgen:fuse_pointwise=off"
    with pytest.raises(EngineFailure, match="route"):
        run(model, x(), ["y"], "route=no_such_knob=off")


def test_an_engine_is_kept_and_found_again(any_tensorrt: str, tmp_path: Path) -> None:
    model, place, folder = net(tmp_path), tmp_path / "net.engine", tmp_path / "rec"

    def built(options: str = "") -> bool:
        run(model, x(), ["y"], f"engine={place},record={folder}{options}")
        return "build" in json.loads((folder / "build.json").read_text())["seconds"]

    assert built() and not built() and built(",tf32=false") and not built(",tf32=false")
    place.write_bytes(place.read_bytes()[:-7])  # a file that was cut short is another
    assert built(",tf32=false")
    proto = onnx.load(str(model))
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[::-1]
    onnx.save(proto, str(model))
    assert built(",tf32=false")
