"""Random graphs through every pass: values and interface stay, every prefix of the changes is a valid model too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from surgeon_passes.catalogue import parse_step, pass_locations
from surgeon_passes.conditions import broken_conditions, interface_of
from surgeon_passes.contract import Pass
from surgeon_passes.graph import from_proto, to_proto
from surgeon_passes.pipeline import run_pipeline
from surgeon_passes.recipe import Recipe, load_recipe
from tests.numeric import assert_same_values, feeds_of, run
from tests.random_models import models

# Each pass of the catalogue as it is typed; what has no value to keep says so below.
KEEPS_VALUES = {
    "dedupe": "dedupe",
    "fold-constants": "fold-constants:size_limit=1MB",
    "fuse-batchnorm": "fuse-batchnorm",
    "fuse-pad": "fuse-pad",
    "infer-shapes": "infer-shapes",
    "inline-functions": "inline-functions",
    "name-everything": "name-everything",
    "remove-dead": "remove-dead",
    "sort": "sort",
}
CHANGES_INTERFACE = {"expose-tensors": "expose-tensors:all=true", "freeze-shapes": "freeze-shapes:N=2"}
TESTED_ALONE = {"extract", "convert-opset", "convert-precision", "gs", "onnx-ir"}
SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def copied(proto: onnx.ModelProto) -> ir.Model:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return from_proto(copy)


def tolerance_of(steps: Iterable[Pass], proto: onnx.ModelProto) -> float:
    """Nothing; rounding, where arithmetic is regrouped; float16's rounding, where onnxruntime emulates it.

    onnxruntime computes chains of float16 operators in float32, and where it rounds depends on the graph around them.
    """
    if "float16" in onnx.printer.to_text(proto):
        return 4e-3
    return 1e-5 if any(step.reassociates for step in steps) else 0.0


def test_every_pass_of_the_catalogue_is_tested() -> None:
    assert set(pass_locations()) == {*KEEPS_VALUES, *CHANGES_INTERFACE, *TESTED_ALONE}


@pytest.mark.parametrize("name", KEEPS_VALUES)
@SETTINGS
@given(proto=models())
def test_values_and_interface_stay(name: str, proto: onnx.ModelProto) -> None:
    step = parse_step(KEEPS_VALUES[name])
    model = copied(proto)
    before = interface_of(model)
    run_pipeline(model, Recipe((step,)))
    assert interface_of(model) == before
    assert_same_values(proto, to_proto(model), rtol=tolerance_of((step,), proto), seeds=range(2))


@pytest.mark.parametrize("name", KEEPS_VALUES)
@settings(SETTINGS, max_examples=10)
@given(proto=models(15), data=st.data())
def test_every_prefix_of_the_changes_is_valid_and_equal(name: str, proto: onnx.ModelProto, data: st.DataObject) -> None:
    step = parse_step(KEEPS_VALUES[name])
    total = len(run_pipeline(copied(proto), Recipe((step,))).changes)
    limit = data.draw(st.integers(0, total))
    report = run_pipeline(copied(proto), Recipe((step,)), limit=limit)
    assert [change.number for change in report.changes] == list(range(1, limit + 1))
    assert broken_conditions(report.model) == []
    assert_same_values(proto, to_proto(report.model), rtol=tolerance_of((step,), proto), seeds=range(1))


@pytest.mark.parametrize("name", KEEPS_VALUES)
@settings(SETTINGS, max_examples=10)
@given(proto=models(15))
def test_a_second_run_finds_nothing_new(name: str, proto: onnx.ModelProto) -> None:
    if name in ("fold-constants", "remove-dead", "dedupe"):
        return  # they feed each other; their fixpoint is tested as simplify
    step = parse_step(KEEPS_VALUES[name])
    model = copied(proto)
    run_pipeline(model, Recipe((step,)))
    assert run_pipeline(model, Recipe((step,))).changes == ()


@SETTINGS
@given(proto=models(40))
def test_simplify_reaches_a_fixpoint_with_equal_values(proto: onnx.ModelProto) -> None:
    recipe = load_recipe("simplify")
    report = run_pipeline(copied(proto), recipe)
    assert max((step.round for step in report.steps), default=1) < recipe.rounds
    assert run_pipeline(report.model, recipe).changes == ()
    assert_same_values(proto, to_proto(report.model), rtol=tolerance_of(recipe.passes(), proto), seeds=range(2))


@pytest.mark.parametrize("name", CHANGES_INTERFACE)
@SETTINGS
@given(proto=models())
def test_what_is_left_of_the_interface_keeps_its_values(name: str, proto: onnx.ModelProto) -> None:
    assume(name != "freeze-shapes" or 'dim_param: "N"' in str(proto.graph.input))
    model = copied(proto)
    run_pipeline(model, Recipe((parse_step(CHANGES_INTERFACE[name]),)))
    later = to_proto(model)
    onnx.checker.check_model(later)
    feeds = feeds_of(proto)
    expected, seen = run(proto, feeds), run(later, feeds)
    for output, value in expected.items():
        np.testing.assert_array_equal(seen[output], value, err_msg=output)


@settings(SETTINGS, max_examples=15)
@given(proto=models(), order=st.permutations(sorted(KEEPS_VALUES)))
def test_passes_in_any_order(proto: onnx.ModelProto, order: list[str]) -> None:
    steps = tuple(parse_step(KEEPS_VALUES[name]) for name in order)
    model = copied(proto)
    run_pipeline(model, Recipe(steps, rounds=2))
    assert_same_values(proto, to_proto(model), rtol=tolerance_of(steps, proto), seeds=range(1))


def test_passes_are_frozen_and_their_options_documented() -> None:
    for name in pass_locations():
        from surgeon_passes.catalogue import find_pass

        kind = find_pass(name)
        assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            assert field.metadata.get("help"), f"{name}: {field.name}"
