from __future__ import annotations

import dataclasses
import io

import ml_dtypes
import numpy as np
import pytest
from rich.console import Console

from surgeon.report.compare_report import print_comparison
from surgeon_debug.attribution import Attribution
from surgeon_debug.compare import compare
from surgeon_debug.comparison import Comparison, Observation, TensorResult
from surgeon_debug.screen import Screen
from surgeon_debug.verdict import Judgement, Verdict, judge


def result(name: str, reference: object, target: object, node: str = "") -> TensorResult:
    difference = compare(reference, target)
    screen = Screen()
    screen.add(reference, target)
    judgement = judge(difference)
    if judgement.verdict is Verdict.DIFFER:
        judgement = Judgement(Verdict.WRONG, f"wrong: {judgement.reason}")
    introduced = screen.unequal / max(1, screen.elements) if screen.exact else screen.rel_l2
    attribution = Attribution(
        introduced=introduced, inherited=0.0, amplification=None, precision="float32", floor=1e-7,
        ratio=introduced / 1e-7, bound=None, conditioning=1.0, own_inputs=None, stripe=None, worst_sample=0,
        introduced_worst=introduced, introduced_mean=introduced, unjudged="",
    )  # fmt: skip
    return TensorResult(name, node or f"/node/{name}", "MatMul", difference, judgement, screen, attribution)


def comparison(layers: int = 300, wrong: frozenset[int] = frozenset(), outputs: int = 1) -> Comparison:
    rng = np.random.default_rng(0)
    made = []
    for i in range(layers):
        r = rng.standard_normal(50).astype(np.float32)
        t = r * np.float32(1.5 if i in wrong else 1 + 1e-7)
        made.append(result(f"/encoder/layer.{i}/attention/self/output/MatMul_output_{i}", r, t))
    shown = tuple(made[-1 - i] for i in range(outputs))
    return Comparison(
        model="m.onnx", other="m.onnx", reference="onnxruntime:optimize=none", target="openvino", samples=1,
        tolerance="table", outputs=shown, layers=tuple(made), layered=True, unmatched=(), unobserved=(),
        observations=(), flaky=(), segments=1, notes=(),
    )  # fmt: skip


def printed(done: Comparison, width: int = 120) -> list[str]:
    out = io.StringIO()
    print_comparison(Console(file=out, width=width, highlight=False, emoji=False), done)
    return out.getvalue().splitlines()


FAULTY = comparison(wrong=frozenset({20, 21, 200, 299}), outputs=30)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_one_screen_whatever_the_width(width: int) -> None:
    busy = dataclasses.replace(
        FAULTY,
        unmatched=("a", "b"),
        unobserved=(("t", "no kernel"),),
        notes=("one", "two", "three"),
        observations=(Observation("openvino", ("y",), ("y",)),),
    )
    lines = printed(busy, width)
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= (40 if width >= 100 else 52)
    assert not any("\x1b" in line for line in lines)  # plain where it is not a terminal
    assert lines[0].startswith("DIFFER")


def test_the_first_and_the_worst_layers_in_topological_order() -> None:
    lines = printed(FAULTY)
    text = "\n".join(lines)
    assert "the error starts at /node//encoder/layer.20/attention" in text
    rows = [int(line.split()[0]) for line in lines if line[:4].strip().isdigit() and "layers" not in line]
    assert rows == sorted(rows) and {20, 21, 22, 201, 300} <= set(rows)
    assert "300 layers, each alone on the reference's inputs: 296 agree, 4 wrong" in text
    assert "next: look at /node//encoder/layer.20" in text and "surgeon extract m.onnx --nodes" in text.replace(
        "\n", " "
    )


def test_numbers_stand_right_under_their_heading() -> None:
    lines = printed(FAULTY)
    head = next(line for line in lines if "introduced" in line and "floor" in line)
    row = next(line for line in lines if line.strip().startswith("21 "))
    assert row[: head.index("introduced") + len("introduced")].endswith("0.5")
    assert row[: head.index("ratio") + len("ratio")].endswith("5.0e+06")


def test_agreement_is_short_and_says_how_much_was_compared() -> None:
    lines = printed(comparison(layers=5))
    assert lines[0].startswith("agree") and lines[3].endswith("5 agree; the largest errors:")
    assert not any(line.startswith("next:") for line in lines)


def test_without_layers_the_next_step_is_named() -> None:
    lines = printed(dataclasses.replace(FAULTY, layered=False, layers=()))
    assert any("add --layers" in line for line in lines)
    assert any(" is worst at [" in line for line in lines)


def test_an_overflow_of_float16_is_called_that() -> None:
    r = np.array([1.0, 70000.0], np.float32)
    first = result("h", r, np.array([1.0, np.inf], np.float16), node="/block/FFN")
    over = dataclasses.replace(first, judgement=Judgement(Verdict.OVERFLOW, "values leave the range of float16"))
    output = dataclasses.replace(first, judgement=Judgement(Verdict.DIFFER, "1 +Inf on one side only"))
    done = dataclasses.replace(FAULTY, outputs=(output,), layers=(over,))
    text = " ".join(printed(done))
    assert text.startswith("DIFFER: the precision does not suffice")
    assert "worst at [1]: reference 70000, target inf" in text
    assert "keep in float32: /block/FFN" in text
    assert "0/1" in text  # the column of special values


def test_missing_outputs_and_effects_of_looking() -> None:
    missing = TensorResult("z", "", "", None, Judgement(Verdict.MISSING, "not delivered by openvino"))
    text = " ".join(printed(dataclasses.replace(FAULTY, outputs=(missing,), layered=False, layers=())))
    assert "output z: missing, not delivered by openvino" in text and "paired by name" in text
    healed = dataclasses.replace(
        comparison(),
        outputs=tuple(dataclasses.replace(r, judgement=Judgement(Verdict.DIFFER, "off")) for r in FAULTY.outputs),
        observations=(Observation("ov", ("y",), ("y",)),),
    )
    text = " ".join(printed(healed))
    assert "depends on how the engine fuses" in text and "switch off the target's fusions" in text


def test_a_flaky_target_is_said_first() -> None:
    text = " ".join(printed(dataclasses.replace(FAULTY, flaky=(("y", 0.25), ("z", 1e-3)))))
    assert "note: openvino is flaky: y differs by 0.25 between two runs on one input, and 1 more" in text


def test_errors_of_nothing_are_not_zero() -> None:
    poisoned = result("p", np.ones(2, np.float32), np.full(2, np.nan, np.float32))
    row = printed(dataclasses.replace(FAULTY, outputs=(poisoned,), layers=(), layered=False))[-2]
    assert row.split() == ["p", "wrong", "-", "-", "-", "-", "-", "-", "0/2"]


def test_markup_in_names_is_text() -> None:
    odd = result("[red]x[/]", np.ones(2, np.float32), np.zeros(2, np.float32), node="a[0]")
    text = "\n".join(printed(dataclasses.replace(FAULTY, outputs=(odd,), layers=(odd,))))
    assert "[red]x[/]" in text and "a[0]" in text


def test_integers_text_and_narrow_types_have_rows() -> None:
    rows = (
        result("i", np.array([1, 2]), np.array([1, 3])),
        result("s", np.array(["a"], object), np.array(["b"], object)),
        result("b", np.ones(2, ml_dtypes.bfloat16), np.zeros(2, ml_dtypes.bfloat16)),
        result("m", np.ones(2), np.ones(3)),
    )
    text = "\n".join(printed(dataclasses.replace(FAULTY, outputs=rows[:1], layers=rows)))
    assert all(f" {name} " in text for name in "isbm")
