"""Recorded builds are read by our parsers, and the simulator speaks no grammar that no record has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgeon_debug.runners.tensorrt.inspector import parse_engine
from surgeon_debug.runners.tensorrt.tactic_log import Dialect, read_tactic_log
from tests.simulated_tensorrt import PROFILES, assemble, drive, models
from tests.simulated_tensorrt.plan import Plan
from tests.simulated_tensorrt.recorded_builds import Recorded, load, recorded, shapes_of_lines

SHAPES = [{"x": ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}]
RECORDED = recorded()


@pytest.fixture(params=RECORDED, ids=[one.name for one in RECORDED])
def one(request: pytest.FixtureRequest) -> Recorded:
    found: Recorded = request.param
    return found


def lines_of(one: Recorded) -> list[str]:
    # Not splitlines: the separators of ONNX names are line ends to it.
    return one.log.read_text(encoding="utf-8", errors="replace").split("\n")


def test_there_is_one_for_each_dialect() -> None:
    dialects = {dialect for one in RECORDED for dialect in read_tactic_log(one.log).dialects}
    assert dialects == set(Dialect)


def test_tables_and_the_cache_tell_the_same(one: Recorded) -> None:
    tables = read_tactic_log(one.log).tables
    assert {table.key: table.chosen for table in tables if table.key} == {
        key: tactic for key, tactic in one.build["tactics"].items() if key in {table.key for table in tables}
    }
    for table in tables:
        assert not table.rows or table.op
        assert not table.chosen or table.row(table.chosen) is not None


def test_the_inspector_leads_back_to_nodes(one: Recorded) -> None:
    layers = parse_engine(one.inspector).layers
    assert layers and all(layer.nodes or layer.origin or not layer.kind for layer in layers)


def kernels(document: str) -> set[str]:
    return {layer["TacticName"] for layer in json.loads(document)["Layers"] if "TacticName" in layer}


def test_chosen_kernels_are_in_the_engine(one: Recorded) -> None:
    for table in read_tactic_log(one.log).tables:
        row = table.row(table.chosen)
        assert row is None or row.kernel in kernels(one.inspector)


def test_the_simulator_speaks_as_the_records_do() -> None:
    known = set().union(*(shapes_of_lines(lines_of(one)) for one in RECORDED))
    spoken = set()
    for plan in (Plan(), Plan(classic=True), Plan(foreign_prefix=False)):
        trt = assemble.module("11.4", plan)
        for model, profiles in ((models.conv_net(), SHAPES), (models.mlp(), ())):
            spoken |= shapes_of_lines(drive.build(trt, model, profiles=profiles).lines)
    assert spoken - known == set()
    assert len(spoken) >= 10


@pytest.mark.parametrize("profile", PROFILES)
def test_the_simulator_knows_no_keys_of_layers_that_the_records_do_not(profile: str) -> None:
    major = profile.split(".")[0]
    rows = [json.loads(one.inspector) for one in RECORDED if one.version.startswith(major)]
    assert rows
    trt = assemble.module(profile, Plan())
    blob = drive.build(trt, models.mlp()).blob or b""
    ours = json.loads(drive.Session(trt, blob).information())
    assert set(ours) <= {key for row in rows for key in row}
    for place in ("Inputs", "Outputs"):
        known = {key for row in rows for layer in row["Layers"] for tensor in layer[place] for key in tensor}
        assert {key for layer in ours["Layers"] for tensor in layer[place] for key in tensor} <= known
    known = {key for row in rows for layer in row["Layers"] for key in layer}
    assert {key for layer in ours["Layers"] for key in layer} <= known


def test_a_folder_that_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks build.json, build.log"):
        load(tmp_path)
    for name in ("build.log", "inspector.json"):
        (tmp_path / name).write_text("")
    (tmp_path / "build.json").write_text("{}")
    with pytest.raises(ValueError, match="versions"):
        load(tmp_path)
