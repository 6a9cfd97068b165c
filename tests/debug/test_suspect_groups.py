"""Groups that go wrong, from what an engine showed; the table of it; and the places of iterations in a golden file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from surgeon_debug.ladder import Group
from surgeon_debug.ladder_words import group_words
from surgeon_debug.runners.tensorrt.inspector import EngineInfo, EngineLayer, EngineTensor
from surgeon_debug.runners.tensorrt.layer_map import LayerMap, ModelTensor
from surgeon_debug.runners.tensorrt.watch_list import Inside
from surgeon_debug.seen_rows import rows_of
from surgeon_debug.seen_tensor import Look, from_text, look_at, to_text, unmatched_look
from surgeon_debug.suspect_group import SeenTensors
from surgeon_debug.verdict import Verdict
from surgeon_passes.errors import EngineError


def layer(name: str, reads: str, writes: str, nodes: tuple[str, ...]) -> EngineLayer:
    inputs, outputs = (tuple(EngineTensor(n, None, "") for n in names.split()) for names in (reads, writes))
    return EngineLayer(name, "", inputs, outputs, nodes, "", "", "", {})


def mapped(*layers: EngineLayer, **nodes: str) -> LayerMap:
    return LayerMap(EngineInfo(layers, (), False, {}), {name: ModelTensor(node) for name, node in nodes.items()})


def bad(look: Look) -> bool:
    return look.special > 0 or look.rel_l2 > 0.1


RIGHT, WRONG = np.ones(3, np.float32), np.full(3, 2, np.float32)
CHAIN = mapped(
    layer("l1", "x", "a", ("A",)),
    layer("copy", "a", "a'", ()),
    layer("l2", "a'", "b", ("B",)),
    layer("l3", "b", "c", ("C", "D")),
    layer("l4", "c", "y", ("Y",)),
    **{name: name.upper() for name in "abcdy"},
)


def looks(**values: np.ndarray) -> list[Look]:
    return [look_at(name, value, RIGHT) for name, value in values.items()]


def groups(layers: LayerMap, seen: list[Look], **owners: str) -> list[Group]:
    return SeenTensors(layers, seen, bad, owners).groups()[0]


def test_a_group_reaches_back_to_what_was_seen_to_be_right() -> None:
    def found(**values: np.ndarray) -> list[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
        return [(group.nodes, group.reads, group.writes) for group in groups(CHAIN, looks(**values))]

    assert found(a=RIGHT, b=RIGHT, c=RIGHT, y=RIGHT) == []
    assert found(a=RIGHT, b=WRONG, c=WRONG) == [(("B",), ("a",), ("b",))]
    assert found(a=RIGHT, c=WRONG) == [(("B", "C", "D"), ("a",), ("c",))]  # nobody saw b
    assert found(c=WRONG, y=WRONG) == [(("A", "B", "C", "D"), (), ("c",))]


def test_of_several_tensors_that_it_may_be_one_that_fits_is_enough() -> None:
    layers = mapped(layer("l", "x", "t", ("C", "D")), c="C", d="D")
    assert layers.tensor("t").candidates == ("c", "d") and layers.tensor("t").ambiguous
    one = dataclasses.replace(look_at("c", WRONG, RIGHT), name="t", choices=2)
    other = dataclasses.replace(look_at("d", RIGHT, RIGHT), name="t", choices=2)
    assert groups(layers, [one, other]) == []
    (group,) = groups(layers, [one])
    assert group.candidates == 2 and "it may be one of 2" in group_words(group)


def test_what_nobody_reads_outside_leaves_no_layer() -> None:
    info = EngineInfo((layer("l", "x", "t", ("C", "D")), layer("m", "t", "y", ("Y",))), (), False, {})
    tensors = {"c": ModelTensor("C", readers=("D",)), "d": ModelTensor("D", readers=("Y",)), "y": ModelTensor("Y")}
    assert LayerMap(info, tensors).tensor("t").candidates == ("d",)
    tensors["c"] = ModelTensor("C", readers=("D", "Y"))
    assert LayerMap(info, tensors).tensor("t").candidates == ("c", "d")
    tensors["c"] = ModelTensor("C", readers=("D", ""))  # an output of the model
    assert LayerMap(info, tensors).tensor("t").candidates == ("c", "d")


def test_a_node_that_two_layers_compute_may_be_read_between_them() -> None:
    info = EngineInfo((layer("l", "x", "t", ("C", "D")), layer("m", "t", "y", ("D", "Y"))), (), False, {})
    tensors = {"c": ModelTensor("C", readers=("D",)), "d": ModelTensor("D", readers=("Y",)), "y": ModelTensor("Y")}
    assert LayerMap(info, tensors).tensor("t").candidates == ("c", "d")


def test_a_tensor_is_wrong_if_it_was_in_one_run() -> None:
    runs = [dataclasses.replace(look_at("b", value, RIGHT), run=run) for run, value in enumerate((RIGHT, WRONG))]
    (group,) = groups(CHAIN, [*looks(a=RIGHT), *runs])
    assert group.nodes == ("B",)


def test_branches_have_groups_of_their_own_and_what_follows_has_none() -> None:
    layers = mapped(
        layer("l", "x", "a", ("A",)), layer("r", "x", "b", ("B",)), layer("j", "a b", "y", ("Y",)), a="A", b="B", y="Y"
    )
    seen = SeenTensors(layers, looks(a=WRONG, b=WRONG, y=WRONG), bad)
    found, follows = seen.groups()
    assert [group.nodes for group in found] == [("A",), ("B",)] and follows == {"y"}
    rows = rows_of(seen, layers, found, follows, (), {})
    assert [row.verdict for row in rows] == [Verdict.WRONG, Verdict.WRONG, Verdict.INHERITS]


def off(**errors: float) -> list[Look]:
    """Looks at tensors that are off by a relative error each."""
    return [look_at(name, RIGHT * np.float32(1 + error), RIGHT) for name, error in errors.items()]


def explains(look: Look, inherited: float) -> bool:
    return look.rel_l2 <= 0.1 + 2 * inherited


def test_an_error_that_grows_past_the_limit_is_nobodys() -> None:
    seen = SeenTensors(CHAIN, off(a=0.08, b=0.12, c=0.2, y=0.4), bad, None, explains)
    found, follows = seen.groups()
    assert (found, follows, list(seen.grown)) == ([], set(), ["b", "c", "y"])
    rows = rows_of(seen, CHAIN, found, follows, (), {})
    assert [row.verdict for row in rows] == [Verdict.AGREE, *[Verdict.INHERITS] * 3]
    assert "the errors of what it is made of explain that" in rows[1].reason
    # Without knowing what is read, the first past the limit would be accused.
    (accused,) = SeenTensors(CHAIN, off(a=0.08, b=0.12, c=0.2, y=0.4), bad).groups()[0]
    assert accused.nodes == ("B",)


def test_a_fault_behind_errors_that_have_grown_is_found() -> None:
    seen = SeenTensors(CHAIN, off(a=0.08, b=0.12, c=0.9, y=0.95), bad, None, explains)
    (group,), follows = seen.groups()
    assert group.nodes == ("C", "D") and group.reads == ("b",) and group.inherited == pytest.approx(0.12, rel=1e-3)
    assert follows == {"y"} and list(seen.grown) == ["b"]


def test_what_is_read_right_to_the_bit_explains_nothing() -> None:
    (group,) = SeenTensors(CHAIN, off(a=0, b=0.12), bad, None, explains).groups()[0]
    assert group.nodes == ("B",)


def test_two_tensors_of_one_layer_are_one_group() -> None:
    layers = mapped(layer("l", "x", "a b", ("A", "B")), a="A", b="B")
    (group,) = groups(layers, looks(a=WRONG, b=WRONG))
    assert group.writes == ("a", "b") and group.nodes == ("A", "B")


def test_an_inserted_layer_says_beside_what_it_is() -> None:
    seen = SeenTensors(CHAIN, [dataclasses.replace(look_at("a", RIGHT, RIGHT), name="a'")], bad)
    (row,) = rows_of(seen, CHAIN, [], set(), (), {})
    assert (row.layer, row.nodes, row.beside, row.sure) == ("copy", ("A",), "after", False)


def test_an_inserted_layer_is_not_what_it_is_called_after() -> None:
    name = "Reformatting CopyNode for Output Tensor 0 to conv + relu"
    layers = mapped(layer("conv + relu", "x", "r'", ("conv", "relu")), layer(name, "r'", "r", ()), c="conv", r="relu")
    seen = SeenTensors(layers, [look_at("r", RIGHT, RIGHT)], bad)
    (row,) = rows_of(seen, layers, [], set(), (), {})
    assert (row.title, row.nodes, row.beside) == ("r", ("conv", "relu"), "after")


def body(iteration: int, name: str, value: np.ndarray) -> Look:
    return dataclasses.replace(look_at(f"loop/body/{name}", value, RIGHT), name=name, how="body", occurrence=iteration)


def test_inside_a_loop_the_first_iteration_that_is_wrong_is_told() -> None:
    layers = mapped(layer("l", "x", "a", ("A",)), layer("loop", "a", "y", ("loop",)), a="A", y="loop")
    inner = [body(0, "h", RIGHT), body(0, "n", RIGHT), body(1, "h", RIGHT), body(1, "n", WRONG), body(2, "h", WRONG)]
    seen = SeenTensors(layers, [*looks(a=RIGHT), *inner, *looks(y=WRONG)], bad, {"h": "loop", "n": "loop"})
    found, follows = seen.groups()
    (group,) = found
    assert group.nodes == ("loop",) and group.reads == ("a",) and group.writes == ("y",) and not follows
    assert group.inside == ("loop/body/n", "1")
    assert "inside, loop/body/n is the first that is wrong, in iteration 1" in group_words(group)
    rows = {row.name: row for row in rows_of(seen, layers, found, follows, (), {"loop/body/n": "loop/body/add"})}
    assert rows["n"].nodes == ("loop/body/add",) and rows["n"].iteration == 1 and rows["h"].iteration == 2


@pytest.mark.parametrize(
    ("axes", "kept", "occurrence", "found"),
    [
        (1, (4, 3), 3, (3,)),
        (1, (4, 3), 4, None),  # beyond what was kept
        (0, (2, 3), 0, ()),  # in a branch
        (2, (4, 3, 5), 7, (2, 1)),  # a loop of three in a loop
        (2, (4, 8, 5), 7, None),  # the inner loop was cut short, or not: nobody knows where the second round begins
        (1, (0, 3), 0, None),
    ],
)
def test_iterations_in_the_golden_file(
    axes: int, kept: tuple[int, ...], occurrence: int, found: tuple[int, ...] | None
) -> None:
    assert Inside("t", axes).index(occurrence, kept, limit=8) == found


def test_nan_in_a_tensor_that_is_nobodys_is_told() -> None:
    value = np.array([1, np.nan, np.inf], np.float32)
    look = dataclasses.replace(unmatched_look("inner", value), run=1)
    assert look.special == 2 and from_text(to_text([look])) == [look]
    layers = mapped(layer("l", "x", "inner", ("A",)), a="A")
    seen = SeenTensors(layers, [look], bad)
    found, follows = seen.groups()
    (row,) = rows_of(seen, layers, found, follows, (), {})
    assert row.verdict is Verdict.WRONG and row.error is None and row.title == "inner"
    right = SeenTensors(layers, [unmatched_look("inner", value[:1])], bad)
    (row,) = rows_of(right, layers, [], set(), (), {})
    assert row.verdict is Verdict.SKIPPED and "no NaN or Inf" in row.reason
    with pytest.raises(EngineError, match="cannot be read"):
        from_text("[[1]]")
