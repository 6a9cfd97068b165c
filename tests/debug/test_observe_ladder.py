"""Looking into an engine, step by step, on the simulated TensorRT with planted faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from surgeon_debug.ladder import Ladder, LadderVerdict, Step
from surgeon_debug.observe_ladder import climb
from surgeon_debug.runners.tensorrt.inspector import EngineInfo, EngineLayer, EngineTensor
from surgeon_debug.runners.tensorrt.layer_map import LayerMap, ModelTensor
from surgeon_debug.runners.tensorrt.watch import Look, look_at
from surgeon_debug.suspect_group import first_bad_group
from tests.debug.tensorrt_places import net, play
from tests.simulated_tensorrt.plan import Fault, Where


def climbed(monkeypatch: pytest.MonkeyPatch, folder: Path, *faults: Fault, **traits: object) -> Ladder:
    play(monkeypatch, folder, *faults, **traits)
    return climb(net(folder), target="tensorrt:tf32=false", timeout=60)


def test_a_healthy_engine_is_left_alone(any_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = climbed(monkeypatch, tmp_path)
    assert found.verdict is LadderVerdict.RIGHT and [rung.step for rung in found.rungs] == [Step.WHOLE]


def test_a_wrong_layer_is_located(each_simulated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = climbed(monkeypatch, tmp_path, Fault("wrong_values", Where(node="/c"), amount=0.2), hidden_share=0.0)
    assert found.verdict is LadderVerdict.LOCATED and found.nodes == ("/c",) and found.alone
    unfused = found.rungs[1]
    assert unfused.step is Step.UNFUSED and unfused.fails and not unfused.split  # the engine is the same
    assert found.to_json()["steps"][1]["step"] == "unfused tensors"


def test_what_marking_heals_is_fusion_dependent(
    new_tensorrt: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault("wrong_values", Where(node="/c"), fused_with=("/d",), amount=0.2)
    found = climbed(monkeypatch, tmp_path, fault, hidden_share=0.0)
    assert found.verdict is LadderVerdict.FUSION and found.nodes == ("/c", "/d")
    assert found.rungs[-1].step is Step.MARKED and found.rungs[-1].split == (("/c", "/d"),)


def test_what_only_outputs_heal_is_fusion_dependent_too(
    new_tensorrt: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault("wrong_values", Where(node="/a"), fused_with=("/b",), amount=0.2)
    found = climbed(monkeypatch, tmp_path, fault, hidden_share=0.0)
    assert found.verdict is LadderVerdict.FUSION and found.nodes == ("/a", "/b")
    assert found.rungs[-1].step is Step.OUTPUTS


def test_a_listener_that_is_never_called_accuses_nobody(
    new_tensorrt: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = (Fault("wrong_values", Where(node="/c"), amount=0.2), Fault("listener_never_called"))
    found = climbed(monkeypatch, tmp_path, *faults)
    assert found.verdict is LadderVerdict.UNKNOWN and not found.nodes


def layer(name: str, reads: str, writes: str, nodes: tuple[str, ...]) -> EngineLayer:
    inputs, outputs = (tuple(EngineTensor(n, None, "") for n in names.split()) for names in (reads, writes))
    return EngineLayer(name, "", inputs, outputs, nodes, "", "", "", {})


def test_a_group_reaches_back_to_what_was_seen_to_be_right() -> None:
    layers = [layer("l1", "x", "a", ("A",)), layer("copy", "a", "a'", ()), layer("l2", "a'", "b", ("B",)),
              layer("l3", "b", "c", ("C", "D")), layer("l4", "c", "y", ("Y",))]  # fmt: skip
    tensors = {name: ModelTensor(name.upper()) for name in "abcdy"}
    layer_map = LayerMap(EngineInfo(tuple(layers), (), False, {}), tensors)
    right, wrong = np.ones(3, np.float32), np.full(3, 2, np.float32)

    def seen(**values: np.ndarray) -> list[Look]:
        return [look_at(name, value, right) for name, value in values.items()]

    def found(looks: list[Look]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] | None:
        group = first_bad_group(layer_map, looks, lambda look: look.rel_l2 > 0.1)
        return None if group is None else (group.nodes, group.reads, group.writes)

    assert found(seen(a=right, b=right, c=right, y=right)) is None
    assert found(seen(a=right, b=wrong, c=wrong)) == (("B",), ("a",), ("b",))
    assert found(seen(a=right, c=wrong)) == (("B", "C", "D"), ("a",), ("c",))  # nobody saw b
    assert found(seen(c=wrong, y=wrong)) == (("A", "B", "C", "D"), (), ("c",))


def test_of_several_tensors_that_it_may_be_one_that_fits_is_enough() -> None:
    layer_map = LayerMap(
        EngineInfo((layer("l", "x", "t", ("C", "D")),), (), False, {}), {"c": ModelTensor("C"), "d": ModelTensor("D")}
    )
    assert layer_map.tensor("t").candidates == ("c", "d") and layer_map.tensor("t").ambiguous
    one = Look("t", 0, "c", "group", 2, 0.5, 1.0, 0, "", "float32", 4)
    other = Look("t", 0, "d", "group", 2, 0.0, 0.0, 0, "", "float32", 4)
    assert first_bad_group(layer_map, [one, other], lambda look: look.rel_l2 > 0.1) is None
    group = first_bad_group(layer_map, [one], lambda look: look.rel_l2 > 0.1)
    assert group is not None and group.candidates == 2
