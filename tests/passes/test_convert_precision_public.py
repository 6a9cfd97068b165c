"""convert-precision on public models: what comes out is valid and runs wherever the original did."""

from __future__ import annotations

import onnx
import pytest

from surgeon_passes import graph
from surgeon_passes.conditions import broken_conditions, interface_of
from surgeon_passes.contract import ChangeLog
from surgeon_passes.convert_precision import ConvertPrecision
from surgeon_passes.errors import SurgeonError
from tests import models
from tests.numeric import feeds_of, run

ROWS = models.index()
SAMPLE = models.sample(ROWS, 60)


def _runs(proto: onnx.ModelProto) -> bool:
    try:
        run(proto, feeds_of(proto))
    except Exception:  # noqa: BLE001  (whatever it says, there is nothing to compare with)
        return False
    return True


def _is_valid(proto: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception:  # noqa: BLE001  (the checker raises a class for each thing it checks)
        return False
    return True


@pytest.mark.parametrize(
    "file", [pytest.param(row["file"], marks=[] if row["file"] in SAMPLE else [pytest.mark.slow]) for row in ROWS]
)
def test_a_public_model_stays_valid_and_runs(file):
    try:
        model = graph.load(models.FOLDER / file)
        before = graph.to_proto(model)
        if broken_conditions(model):
            pytest.skip("not a valid graph to begin with")
        interface = interface_of(model)
        result = ConvertPrecision().run(model, ChangeLog())
    except SurgeonError:
        return
    if not result.changes:
        assert graph.to_proto(model) == before
        return
    assert interface_of(model) == interface
    assert broken_conditions(model) == []
    after = graph.to_proto(model)
    if _is_valid(before):
        onnx.checker.check_model(after, full_check=True)
    if _runs(before):
        run(after, feeds_of(before))
