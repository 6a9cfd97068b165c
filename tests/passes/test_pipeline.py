"""Order, rounds, limits, hooks, and the conditions around every pass."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import ClassVar

import onnx
import onnx_ir as ir
import pytest

from surgeon_passes.change_journal import ChangeJournal
from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.errors import BadModelError, BrokenPassError
from surgeon_passes.pipeline import StepReport, run_pipeline
from surgeon_passes.recipe import Recipe


def chain(length: int = 4) -> ir.Model:
    names = ["x", *(f"t{i}" for i in range(length - 1)), "y"]
    nodes = [onnx.helper.make_node("Neg", [a], [b], name=f"n_{b}") for a, b in itertools.pairwise(names)]
    io = [onnx.helper.make_tensor_value_info(n, 1, ["N"]) for n in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "g", io[:1], io[1:])
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))


@dataclasses.dataclass(frozen=True)
class Rename(Pass):
    """Turn one operator into another, a few nodes a run."""

    name: ClassVar[str] = "rename"
    old: str = option("Neg", "From.")
    new: str = option("Abs", "To.")
    most: int = option(99, "Nodes a run.")

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        for node in [n for n in model.graph if n.op_type == self.old][: self.most]:
            if log.permit("rename", before=[node.name], after=[node.name]):
                node.op_type = self.new


@dataclasses.dataclass(frozen=True)
class Break(Pass):
    """Break the model in one way."""

    name: ClassVar[str] = "break"
    how: str = option("output", "What to break.")

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        log.permit("break")
        nodes = list(model.graph)
        if self.how == "output":
            model.graph.outputs[0].name = "z"
        elif self.how == "cycle":
            nodes[0].replace_input_with(0, nodes[-1].outputs[0])
        elif self.how == "order":
            model.graph.remove(nodes[0])
            model.graph.append(nodes[0])
        elif self.how == "clash":
            nodes[0].name = nodes[1].name


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_changes_are_numbered_over_all_passes_and_rounds() -> None:
    recipe = Recipe((Rename(most=2), Rename("Abs", "Exp")), rounds=5)
    report = run_pipeline(chain(), recipe)
    assert ops(report.model) == ["Exp"] * 4
    assert [change.number for change in report.changes] == list(range(1, 9))
    assert not report.withheld
    # The third round ends with Rename finding nothing, and the second pass is not asked again.
    assert [(s.spec, s.round, len(s.changes)) for s in report.steps] == [
        ("rename:most=2", 1, 2),
        ("rename:old=Abs,new=Exp", 1, 2),
        ("rename:most=2", 2, 2),
        ("rename:old=Abs,new=Exp", 2, 2),
        ("rename:most=2", 3, 0),
        ("rename:old=Abs,new=Exp", 3, 0),
    ]


@pytest.mark.parametrize("limit", range(9))
def test_a_limit_stops_after_a_number(limit: int) -> None:
    recipe = Recipe((Rename(most=2), Rename("Abs", "Exp")), rounds=5)
    report = run_pipeline(chain(), recipe, limit=limit)
    assert len(report.changes) == limit
    assert report.withheld
    assert ops(report.model).count("Neg") == 4 - min(limit, 2) - max(0, min(limit, 6) - 4)


def test_inner_recipes_settle_in_their_place() -> None:
    inner = Recipe((Rename(most=1),), rounds=9)
    report = run_pipeline(chain(), Recipe((inner, Rename("Abs", "Exp"))))
    assert [s.spec for s in report.steps] == ["rename:most=1"] * 5 + ["rename:old=Abs,new=Exp"]


@pytest.mark.parametrize(
    ("how", "words"), [("output", "output"), ("cycle", "before"), ("order", "before"), ("clash", "n_t1")]
)
def test_a_pass_that_breaks_the_model_is_named(how: str, words: str) -> None:
    with pytest.raises(BrokenPassError, match=rf"pass break broke the model: .*{words}"):
        run_pipeline(chain(), Recipe((Break(how),)))


def test_a_model_that_is_out_of_order_is_sorted_as_a_change() -> None:
    model = chain()
    nodes = list(model.graph)
    model.graph.remove(nodes[0])
    model.graph.append(nodes[0])
    report = run_pipeline(model, Recipe((Rename(),)))
    assert report.steps[0].spec == "sort"
    assert report.changes[0].step == "sort"
    with pytest.raises(BadModelError):
        run_pipeline(model_with_cycle(), Recipe((Rename(),)))


def model_with_cycle() -> ir.Model:
    model = chain()
    nodes = list(model.graph)
    nodes[0].replace_input_with(0, nodes[2].outputs[0])
    return model


def test_hooks_see_every_pass_in_order() -> None:
    seen: list[tuple[str, str]] = []

    class Watch:
        def before(self, step: Pass, model: ir.Model) -> None:
            seen.append(("before", ops(model)[0]))

        def after(self, step: Pass, model: ir.Model, report: StepReport) -> None:
            seen.append(("after", ops(model)[0]))
            assert report.seconds >= 0
            assert report.nodes_before == report.nodes_after == 4

    run_pipeline(chain(), Recipe((Rename(), Rename("Abs", "Exp"))), hooks=[Watch()])
    assert seen == [("before", "Neg"), ("after", "Abs"), ("before", "Abs"), ("after", "Exp")]


def test_the_journal_shows_the_pass_a_run_died_in(tmp_path: Path) -> None:
    journal = ChangeJournal(tmp_path / "journal.jsonl")
    with pytest.raises(BrokenPassError):
        run_pipeline(chain(), Recipe((Rename(most=1), Break("cycle"))), hooks=[journal])
    records = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [r["record"] for r in records] == ["step", "change", "done", "step"]
    assert records[1]["before"] == ["n_t0"]
    assert records[-1]["step"] == "break:how=cycle"
