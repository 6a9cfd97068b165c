"""Simplify every public model: equal values, or a clear refusal; no traceback, no other interface, no wrong number."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from surgeon_debug.feeds import make_feeds
from surgeon_debug.layer_plan import random_nodes
from surgeon_debug.runners.catalogue import make_engine
from surgeon_passes.errors import EngineError, SurgeonError
from surgeon_passes.graph import load
from surgeon_passes.pipeline import run_pipeline
from surgeon_passes.recipe import load_recipe
from surgeon_passes.save import save
from tests.models import FOLDER, index, sample

ROWS = index()
SAMPLE = sample(ROWS, 200)
REASSOCIATING = {"fuse-batchnorm", "fuse-pad"}
# Relative L2 error that regrouping a convolution's arithmetic may cause: some units of rounding, times sqrt(K).
BOUND = {"float32": 1e-5, "float64": 1e-12, "float16": 4e-3, "bfloat16": 3e-2}


def values_of(path: Path, feeds: dict[str, Any]) -> dict[str, Any] | str:
    """All outputs under onnxruntime without optimisation, or its refusal."""
    with make_engine("onnxruntime:optimize=none,threads=1") as engine:
        try:
            engine.prepare(path, [output.name for output in load(path, check_weights=False).graph.outputs])
            return engine.run(feeds)
        except EngineError as error:
            return str(error)


def assert_equal(name: str, before: Any, after: Any, exact: bool, coarsest: str = "") -> None:
    if isinstance(before, list):
        assert len(before) == len(after)
        for a, b in zip(before, after, strict=True):
            assert_equal(name, a, b, exact, coarsest)
    elif not isinstance(before, np.ndarray):
        assert repr(before) == repr(after)
    else:
        assert (before.dtype, before.shape) == (after.dtype, after.shape), name
        if exact or before.dtype.name not in BOUND:
            assert before.tobytes() == after.tobytes() or np.array_equal(
                before, after, equal_nan=before.dtype.kind == "f"
            ), name
            return
        a, b = before.astype(np.float64), after.astype(np.float64)
        assert np.array_equal(np.isfinite(a), np.isfinite(b)), name
        finite = np.isfinite(a)
        scale = float(np.linalg.norm(a[finite])) or 1.0
        assert float(np.linalg.norm(a[finite] - b[finite])) <= BOUND[coarsest or before.dtype.name] * scale, name


def interface(model: ir.Model) -> list[tuple[str | None, str, str]]:
    return [(v.name, str(v.type), str(v.shape)) for v in (*model.graph.inputs, *model.graph.outputs)]


def checker_words(path: Path) -> str:
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # noqa: BLE001
        return str(error) or "refused"
    return ""


def parameters() -> list[Any]:
    return [
        pytest.param(row, id=row["file"][-70:], marks=() if row["file"] in SAMPLE else pytest.mark.slow) for row in ROWS
    ]


@pytest.mark.parametrize("row", parameters())
def test_simplify_keeps_every_value(row: dict[str, Any], tmp_path: Path, counts: collections.Counter[str]) -> None:
    source = FOLDER / row["file"]
    try:
        model = load(source)
        before = interface(model)
        report = run_pipeline(model, load_recipe("simplify"))
    except SurgeonError as error:
        assert "\n" not in str(error)
        assert row["ort"] != "loads" or row.get("checker"), f"refused although it runs: {error}"
        counts["refused"] += 1
        return
    assert interface(report.model) == before
    out = tmp_path / "out.onnx"
    save(report.model, out)
    if not checker_words(source):
        assert checker_words(out) == ""
    if row["ort"] != "loads":
        counts["simplified, not runnable under onnxruntime"] += 1
        return
    ort.set_default_logger_severity(4)
    try:
        feeds = make_feeds(load(source), seed=1)
    except SurgeonError:
        counts["simplified, inputs are maps or sparse"] += 1
        return
    expected = values_of(source, feeds)
    if isinstance(expected, str):
        counts["simplified, seeded inputs not accepted by onnxruntime"] += 1
        return
    seen = values_of(out, feeds)
    assert not isinstance(seen, str), seen
    if not random_nodes(load(source)):
        # onnxruntime computes chains of float16 operators that it has no CPU kernel for in float32, and where it rounds
        # in between depends on the graph around them.
        emulated = {"float16", "bfloat16"} & set(row["special"])
        exact = not emulated and not any(change.step in REASSOCIATING for change in report.changes)
        for name, value in expected.items():
            assert_equal(name, value, seen[name], exact, max(emulated, key=BOUND.__getitem__, default=""))
        counts["equal to the bit" if exact else "equal within rounding"] += 1
    else:
        counts["random by nature, runs"] += 1
