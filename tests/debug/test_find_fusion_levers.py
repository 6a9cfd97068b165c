"""What heals a fusion: one knob, two, none but outputs, or nothing; and what is said where tactics cannot be tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from surgeon_debug.find.engine_builds import BuildRecord, Builds, Wish
from surgeon_debug.find.engine_ground import Question
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.fusion import find_fusion
from surgeon_debug.find.tensorrt_builds import TensorrtBuilder
from surgeon_debug.values import Feeds, Value
from tests.debug.library_in_process import forgotten, here
from tests.debug.tensorrt_places import INSTALLED, play
from tests.simulated_tensorrt.plan import Fault, Where

__all__ = ["forgotten"]
pytestmark = pytest.mark.usefixtures("forgotten")

NET = """<ir_version: 9, opset_import: ["" : 17]>
    net (float[4, 16] x) => (float[4, 16] y) {
        m = MatMul (x, w)
        a = Add (m, b)
        t = Tanh (a)
        s = Softmax (t)
        p = Mul (s, b)
        q = Sigmoid (p)
        u = Mul (q, b)
        v = MatMul (u, w)
        y = Add (v, b)
    }"""
PRODUCT = Fault("wrong_values", Where(node="m"), fused_with=("t",), amount=1.0)
POINTWISE = Fault("wrong_values", Where(node="p"), fused_with=("u",), amount=1.0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    proto = onnx.parser.parse_model(NET)
    draw = np.random.default_rng(0)
    for name, shape in (("w", (16, 16)), ("b", (16,))):
        value = (draw.standard_normal(shape) / 2).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    for node in proto.graph.node:
        node.name = node.output[0]
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(INSTALLED / "11.4"))


def nodes_of(found: object) -> list[set[str]]:
    return [set(one.nodes) for one in found.culprits]  # type: ignore[attr-defined]


def test_two_knobs_where_it_takes_two(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, PRODUCT, POINTWISE)
    found = find_fusion(Question(model), builder=here)
    assert len(found.knobs) == 2
    assert {"kgen:fuse_pointwise"} < {flip.knob for flip in found.knobs}
    assert sorted(map(sorted, nodes_of(found))) == [["a", "m", "t"], ["p", "q", "s", "u"]]
    assert ";" in found.command
    assert all(flip.text in found.command for flip in found.knobs)


def test_outputs_heal_where_no_knob_does(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, POINTWISE)
    found = find_fusion(Question(model), builder=lambda made: Deaf(here(made)))
    assert not found.knobs
    assert nodes_of(found) == [{"s", "p", "q", "u"}]
    assert "expose-tensors" in found.command
    assert any(step.name == "knobs" and "none heals" in step.words for step in found.steps)


def test_nothing_heals_what_is_no_fusion(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, tmp_path, dataclasses.replace(POINTWISE, fused_with=()))
    found = find_fusion(Question(model), builder=here)
    assert found.outcome is FindOutcome.UNDECIDED
    assert not found.knobs
    assert not found.command
    assert "no fusion is to blame" in found.reason
    assert "find nodes" in found.advice


def test_no_fusion_is_accused_where_tactics_cannot_be_tried(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library follows no pin: a bad tactic is healed by whatever takes its layer apart."""
    kernel = Fault("wrong_values", Where(node="m", rank=0), fused_with=("t",), amount=1.0)
    play(monkeypatch, tmp_path, kernel, Fault("cache_ignored"))
    found = find_fusion(Question(model), builder=here)
    assert found.outcome is FindOutcome.UNDECIDED
    assert not found.culprits
    assert not found.knobs
    assert "either may be to blame" in found.reason
    assert "=off" in found.reason


@dataclasses.dataclass(frozen=True)
class Deaf:
    """A builder that takes every route and follows none."""

    builder: TensorrtBuilder

    @property
    def label(self) -> str:
        return self.builder.label

    def make(self) -> DeafBuilds:
        return DeafBuilds(self.builder.make())


class DeafBuilds:
    def __init__(self, builds: Builds) -> None:
        self._builds = builds

    @property
    def precision(self) -> str | None:
        return self._builds.precision

    def build(self, wish: Wish) -> BuildRecord:
        kept = tuple(option for option in wish.options if option[0] != "route")
        return self._builds.build(dataclasses.replace(wish, options=kept))

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        return self._builds.run(feeds)

    def close(self) -> None:
        self._builds.close()

    def abort(self) -> None:
        self._builds.abort()
