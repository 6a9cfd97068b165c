"""Climbing the ladder in tests: models, planted faults, and libraries that are others in some steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from surgeon_debug.comparison import Comparison
from surgeon_debug.ladder import Ladder, Rung, Step
from surgeon_debug.ladder_runs import Ran, Runs
from surgeon_debug.observe_ladder import climb
from surgeon_debug.runners.catalogue import make_engine
from tests.debug.tensorrt_places import net, play
from tests.simulated_tensorrt.plan import Fault, Where

C_IS_WRONG = Fault("wrong_values", Where(node="/c"), amount=0.2)


def saved(folder: Path, text: str, **shapes: tuple[int, ...]) -> Path:
    """A model with seeded weights, whose nodes are called by their outputs."""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        weight = (rng.standard_normal(shape) / 3).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}"
    onnx.save(proto, str(folder / "net.onnx"))
    return folder / "net.onnx"


def climb_here(model: Path, target: str = "tensorrt:tf32=false", **given: Any) -> Comparison:
    """Climb, with the reference in this process."""
    with make_engine("onnxruntime:optimize=none") as reference:
        return climb(model, target=target, reference=reference, timeout=60, **given)


def climbed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *faults: Fault, model: Path | None = None, **traits: object
) -> tuple[Comparison, Ladder]:
    play(monkeypatch, folder, *faults, **{"hidden_share": 0.0, **traits})
    done = climb_here(model or net(folder))
    assert done.ladder is not None
    return done, done.ladder


def steps(found: Ladder) -> list[tuple[Step, bool | None]]:
    return [(rung.step, rung.fails) for rung in found.rungs]


def rung_of(found: Ladder, step: Step) -> Rung:
    rung = found.rung(step)
    assert rung is not None
    return rung


def played_by_step(
    monkeypatch: pytest.MonkeyPatch, folder: Path, always: tuple[Fault, ...], at: dict[Step, tuple[Fault, ...]]
) -> Ladder:
    """Climb where the library is another in some steps."""
    make, piece = Runs.make, Runs.piece

    def make_so(self: Runs, step: Step, shown: Sequence[str] = ()) -> Ran:
        play(monkeypatch, folder, *at.get(step, always), hidden_share=0.0)
        return make(self, step, shown)

    def piece_so(self: Runs, *given: Any) -> Any:
        play(monkeypatch, folder, *at.get(Step.PIECE, always), hidden_share=0.0)
        return piece(self, *given)

    monkeypatch.setattr(Runs, "make", make_so)
    monkeypatch.setattr(Runs, "piece", piece_so)
    found = climb_here(net(folder)).ladder
    assert found is not None
    return found
