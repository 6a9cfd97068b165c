from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from surgeon_debug.find.axis_groups import axis_groups
from surgeon_debug.find.culprit_piece import CulpritPiece, cut_culprit
from surgeon_debug.find.oracle import FailureKind, Signature
from surgeon_debug.find.piece_failure import PieceFailure
from surgeon_debug.find.piece_trials import PieceTrials
from surgeon_debug.find.seeded_weights import random_like, seeded_weights
from surgeon_debug.find.shrink import rounded, shrink
from surgeon_debug.runners.catalogue import make_engine
from tests.debug.test_culprit_piece import declared, model_of, position, source_of, weight

ORT = "onnxruntime:optimize=none,threads=1"
RUNNERS = Path(__file__).parent / "culprit_runners.py"
RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def trials_on(
    folder: Path, model: onnx.ModelProto, tensor: str, feeds: list[dict[str, Any]], options: str, **more: Any
) -> tuple[PieceTrials, CulpritPiece, Any]:
    reference, target = make_engine(ORT), make_engine(f"{RUNNERS}:AtOperator:{options}")
    source = source_of(model, folder)
    piece = cut_culprit(source, [position(source, tensor)], feeds, reference)
    failure = PieceFailure.of_piece(piece, Signature(FailureKind.WRONG_NUMBERS))
    trials = PieceTrials(reference, target, failure, folder, **more)
    ready = trials.expected(piece)
    assert ready is not None
    seen, result = trials.run(ready)
    anchored = failure.anchored(result)
    assert anchored is not None
    trials.failure = anchored
    trials.last = seen, result
    return trials, ready, result


def matmul(n: int, k: int, m: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])]
    return model_of(nodes, [declared("x", ["n", k])], ["y"], [weight("w", k, m)])


def conv(group: int = 1) -> onnx.ModelProto:
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1], group=group)]
    weights = [weight("w", 16, 8 // group, 3, 3), weight("b", 16)]
    return model_of(nodes, [declared("x", [2, 8, 20, 24])], ["y"], weights)


def test_a_wrong_factor_comes_down_to_one_number(tmp_path: Path) -> None:
    feeds = [{"x": normal(3, 64)}, {"x": normal(16, 64)}]
    trials, piece, result = trials_on(tmp_path, matmul(16, 64, 128), "y", feeds, "op=MatMul,gain=1.01")
    assert trials.last is not None
    shrunk = shrink(piece, trials.attempt, worst_sample=result.worst_sample, seen=trials.last[0].values)
    assert len(shrunk.piece.feeds) == 1
    assert shrunk.piece.weights["w"].shape == (1, 1)
    assert shrunk.piece.feeds[0]["r"].shape == (1, 1)
    assert any("2 samples" in step for step in shrunk.steps)
    assert trials.trials <= 2 + 2 + 2 * math.log2(64) + 2
    assert trials.failure.matches(trials.run(shrunk.piece)[1])


def test_a_fault_that_needs_a_length_keeps_it(tmp_path: Path) -> None:
    feeds = [{"x": normal(4, 32)}]
    trials, piece, _ = trials_on(tmp_path, matmul(4, 32, 128), "y", feeds, "op=MatMul,gain=1.1,least=12")
    shrunk = shrink(piece, trials.attempt)
    rows, columns = shrunk.piece.weights["w"].shape
    assert rows == 1
    assert 12 <= columns < 24
    assert trials.failure.matches(trials.run(shrunk.piece)[1])


@pytest.mark.parametrize("group", [1, 8])
def test_a_convolution_loses_channels_and_pixels(tmp_path: Path, group: int) -> None:
    feeds = [{"x": normal(2, 8, 20, 24)}]
    trials, piece, _ = trials_on(tmp_path, conv(group), "y", feeds, "op=Conv,gain=1.1")
    shrunk = shrink(piece, trials.attempt)
    batch, channels, *pixels = shrunk.piece.feeds[0]["x"].shape
    assert batch == 1
    assert pixels == [1, 1]
    assert channels == (1 if group == 1 else 8)
    assert shrunk.piece.weights["w"].shape[0] == channels
    assert trials.failure.matches(trials.run(shrunk.piece)[1])


def test_the_wrong_channel_is_the_one_that_stays(tmp_path: Path) -> None:
    feeds = [{"x": normal(1, 8, 20, 24)}]
    trials, piece, _ = trials_on(tmp_path, conv(), "y", feeds, "op=Conv,gain=3,channel=11")
    assert trials.last is not None
    shrunk = shrink(piece, trials.attempt, seen=trials.last[0].values)
    # The runner spoils an index, not a filter: with fewer than twelve channels nothing is wrong.
    assert shrunk.piece.weights["w"].shape[0] == 16
    assert shrunk.piece.feeds[0]["x"].shape[2:] == (1, 1)


def test_no_more_trials_than_allowed(tmp_path: Path) -> None:
    feeds = [{"x": normal(8, 64)}]
    trials, piece, _ = trials_on(tmp_path, matmul(8, 64, 64), "y", feeds, "op=MatMul", trials=4)
    shrunk = shrink(piece, trials.attempt)
    assert trials.trials <= 4
    assert trials.failure.matches(trials.run(shrunk.piece)[1])


def test_rounding_that_a_crop_makes_large_is_no_failure(tmp_path: Path) -> None:
    # Output column 0 cancels: whoever sums it in another order is off by a large factor of a tiny number.
    k = 4096
    column = normal(k, 1)
    weights = np.concatenate([1e4 * column, normal(k, 7)], axis=1)
    row = normal(1, k)
    row -= (row @ column) / (column.T @ column) * column.T
    tensor = onnx.numpy_helper.from_array(weights, "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = model_of(nodes, [declared("x", [1, k])], ["y"], [tensor])
    reference = make_engine(ORT)
    piece = cut_culprit(source_of(model, tmp_path), [0], [{"x": row.astype(np.float32)}], reference)
    flipped = Reordered(ORT)
    failure = PieceFailure.of_piece(piece, Signature(FailureKind.WRONG_NUMBERS))
    trials = PieceTrials(reference, flipped, failure, tmp_path)  # type: ignore[arg-type]
    ready = trials.expected(piece)
    assert ready is not None
    cancelled = ready.changed(weights={"w": np.ascontiguousarray(weights[:, :1])})
    again = trials.expected(cancelled)
    assert again is not None
    _, result = trials.run(again)
    assert failure.matches(result), "the relative error is above the table's limit"
    assert trials.attempt(cancelled) is None


class Reordered:
    """Sums in another order: reads the rows of the weights backwards."""

    def __init__(self, text: str) -> None:
        self.engine = make_engine(text)

    def prepare(self, path: Path, outputs: Any) -> None:
        model = onnx.load(str(path))
        [tensor] = [t for t in model.graph.initializer if t.name == "w"]
        array = onnx.numpy_helper.to_array(tensor)[::-1]
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), "w"))
        onnx.save(model, str(path.with_name("backwards.onnx")))
        self.engine.prepare(path.with_name("backwards.onnx"), outputs)

    def run(self, feeds: Any) -> Any:
        return self.engine.run({name: np.ascontiguousarray(value[..., ::-1]) for name, value in feeds.items()})


def test_values_become_plain_where_that_will_do(tmp_path: Path) -> None:
    feeds = [{"x": normal(4, 32)}]
    trials, piece, _ = trials_on(tmp_path, matmul(4, 32, 128), "y", feeds, "op=MatMul,gain=1.1,least=100")
    shrunk = shrink(piece, trials.attempt)
    kept = shrunk.piece.weights["w"]
    assert np.array_equal(kept, rounded(kept))
    assert any("rounded" in step for step in shrunk.steps)


def test_short_fractions_are_near_and_special_values_stay() -> None:
    array = np.array([1.23456, -3e-30, np.nan, np.inf, 0.0], np.float32)
    short = rounded(array)
    assert np.allclose(short[:2], array[:2], rtol=2**-4, atol=0)
    assert np.isnan(short[2])
    assert short[3] == np.inf
    assert short.dtype == np.float32


def fake(piece: CulpritPiece, fails: Callable[[CulpritPiece], bool]) -> Callable[[CulpritPiece], CulpritPiece | None]:
    """An attempt without engines."""

    def attempt(candidate: CulpritPiece) -> CulpritPiece | None:
        a, b = candidate.feeds[0]["r"], candidate.weights["w"]
        if a.shape[-1] != b.shape[0] or not fails(candidate):
            return None
        return dataclasses.replace(candidate, expected=({"y": a @ b},))

    return attempt


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.data())
def test_what_is_left_fails_and_no_half_of_it_does(n: int, k: int, m: int, data: Any) -> None:
    least = [data.draw(st.integers(1, size)) for size in (n, k, m)]
    model = matmul(n, k, m)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["r", "w"], ["y"])], "g", [declared("r", [n, k])],
        [onnx.ValueInfoProto(name="y")], [onnx.TensorProto(name="w", data_type=1, dims=[k, m])],
    )  # fmt: skip
    weights = {"w": np.asarray(onnx.numpy_helper.to_array(model.graph.initializer[0]))}
    feeds = ({"r": normal(n, k)},)
    piece = CulpritPiece(helper.make_model(graph), weights, feeds, ("y",), ("y",))
    piece = dataclasses.replace(piece, expected=({"y": feeds[0]["r"] @ weights["w"]},))

    def sizes(candidate: CulpritPiece) -> list[int]:
        return [*candidate.feeds[0]["r"].shape, candidate.weights["w"].shape[1]]

    def fails(candidate: CulpritPiece) -> bool:
        return all(size >= bound for size, bound in zip(sizes(candidate), least, strict=True))

    left = sizes(shrink(piece, fake(piece, fails)).piece)
    # Axes of equal length are not the same axis: MatMul ties only the sum's.
    for size, bound in zip(left, least, strict=True):
        assert bound <= size
        assert size == 1 or (size + 1) // 2 < bound


def test_axes_of_equal_length_are_told_apart(tmp_path: Path) -> None:
    source = source_of(matmul(16, 16, 16), tmp_path)
    piece = cut_culprit(source, [position(source, "y")], [{"x": normal(16, 16)}], make_engine(ORT))
    groups = {frozenset(group.members) for group in axis_groups(piece, ())}
    assert groups == {frozenset({("r", 0)}), frozenset({("r", 1), ("w", 0)}), frozenset({("w", 1)})}


def test_private_weights_and_inputs_go(tmp_path: Path) -> None:
    feeds = [{"x": normal(4, 32)}]
    trials, piece, _ = trials_on(tmp_path, matmul(4, 32, 16), "y", feeds, "op=MatMul,gain=1.1")
    seeded = seeded_weights(piece, trials.attempt, seed=3)
    assert set(seeded.replaced) == {"w", "r"}
    assert not seeded.kept
    made, given_ = seeded.piece.weights["w"], piece.weights["w"]
    assert not np.isin(given_, made).any()
    assert abs(made.std() / given_.std() - 1) < 0.2
    assert "random" in seeded.words
    again = seeded_weights(piece, trials.attempt, seed=3)
    assert np.array_equal(again.piece.weights["w"], made)


def test_what_the_failure_depends_on_stays_and_is_named(tmp_path: Path) -> None:
    feeds = [{"x": np.abs(normal(4, 32)) + np.float32(np.arange(4)[:, None] * 40)}]
    total = float(np.maximum(feeds[0]["x"], 0).sum())
    options = f"op=MatMul,gain=1.1,above={0.999999 * total}"
    trials, piece, _ = trials_on(tmp_path, matmul(4, 32, 16), "y", feeds, options)
    seeds = [seeded_weights(piece, trials.attempt, seed=seed) for seed in range(6)]
    kept = [seeded for seeded in seeds if seeded.kept]
    assert kept, "a sum above one that is as large as it gets is not met by chance every time"
    for seeded in kept:
        assert seeded.kept == ("r",)
        assert seeded.replaced == ("w",)
        assert "r are the original ones" in seeded.words


@pytest.mark.parametrize(
    "value",
    [
        np.array([3, 7, 100], np.int64), np.array([0.0, 2.0, 5.0], np.float32), np.array([-1.5, -0.25], np.float16),
        np.array([True, False, True]), np.array(["ab", "c", "ab"], object), np.array([1 + 2j, 3 - 1j], np.complex64),
        np.array([-3, 5], np.int8),
    ],
)  # fmt: skip
def test_random_values_are_of_the_same_kind(value: np.ndarray) -> None:
    made = random_like(np.tile(value, 50), np.random.default_rng(0))
    assert made.dtype == value.dtype
    assert made.shape == (50 * value.size,)
    if value.dtype.kind in "iuf":
        assert value.min() <= made.min()
        assert made.max() <= value.max()
        assert bool((made == np.round(made)).all()) == bool((value == np.round(value)).all())
    if value.dtype == object:
        assert len(set(made)) <= 2
        assert sorted(map(len, set(made))) == [1, 2]
