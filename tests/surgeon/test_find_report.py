"""What people read of a finding, whatever it is, however wide their terminal."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from surgeon.report.cells import middle
from surgeon.report.find_report import print_finding
from surgeon_debug.find.finding import Culprit, Finding, FindOutcome, Step
from surgeon_debug.find.oracle import FailureKind, Signature

STEPS = (
    Step("probe", "wrong numbers in 2 of 2 runs", trials=2, builds=1, runs=2, reference_runs=1, seconds=0.41),
    Step("census", "1 of 340 nodes is wrong alone", trials=1, builds=1, runs=1, seconds=2.25),
    Step("verify", "alone it fails, without it the model is right", trials=3, builds=3, runs=3, cached=1, seconds=1.0),
)
CULPRIT = Culprit(
    nodes=("conv_17",), ops=("Conv",), tensors=("conv_17_out",), kind=FailureKind.WRONG_NUMBERS,
    reason="introduces 0.31 relative L2, 2.5e+05 times what float32 explains", positions=(17,), found_by="census",
    alone=True, cured=True,
)  # fmt: skip
FOUND = Finding(
    outcome=FindOutcome.FOUND, model="model.onnx", reference="onnxruntime:optimize=none", target="openvino",
    elements=340, samples=1, signature=Signature(FailureKind.WRONG_NUMBERS),
    failure="output logits differs: relative L2 0.31 is above 0.001", culprits=(CULPRIT,), latent=(), reason="",
    advice="look at it alone: surgeon extract model.onnx --nodes conv_17 -o piece.onnx", steps=STEPS,
)  # fmt: skip
LONG = "/encoder/layers.11/" + "very_long_module_name/" * 12 + "MatMul"


def made(culprit: Culprit | None = None, **changes: Any) -> Finding:
    return dataclasses.replace(FOUND, **{"culprits": FOUND.culprits if culprit is None else (culprit,), **changes})


def printed(found: Finding, width: int = 120) -> list[str]:
    out = io.StringIO()
    print_finding(Console(file=out, width=width, highlight=False, emoji=False), found)
    return out.getvalue().splitlines()


def text(found: Finding, width: int = 120) -> str:
    """All words on one line."""
    return " ".join(" ".join(printed(found, width)).split())


def test_the_answer_comes_first_and_the_facts_after_it() -> None:
    lines = printed(made(bundle="fault.zip"))
    assert lines[0] == "culprit: node 'conv_17' (Conv) computes wrongly under openvino"
    assert lines[1] == "model.onnx: 340 nodes, 1 sample; reference onnxruntime:optimize=none; target openvino"
    facts = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[2:10]}
    assert facts["measured"] == "introduces 0.31 relative L2, 2.5e+05 times what float32 explains"
    assert facts["computes"] == "conv_17_out"
    assert facts["found"] == "alone it is wrong, on the reference's values"
    assert facts["without"] == "the model is right when it is all that the reference computes"
    assert "the model output logits differs: relative L2 0.31 is above 0.001" in text(FOUND)
    assert lines[-2].startswith("next: look at it alone: surgeon extract")
    assert lines[-1] == "bundle: fault.zip; 'surgeon replay' runs it again, anywhere"


def test_the_steps_add_up() -> None:
    lines = printed(FOUND)
    head = next(i for i, line in enumerate(lines) if line.startswith("step"))
    assert " ".join(lines[head].split()) == "step what came out trials known builds runs ref. runs seconds"
    assert lines[head + 1].endswith("2            1    2         1     0.4")
    assert lines[head + 4].split() == ["all", "6", "1", "5", "6", "1", "3.7"]
    untroubled = tuple(dataclasses.replace(step, cached=0) for step in STEPS)
    assert "known" not in text(made(steps=untroubled))


@pytest.mark.parametrize(
    ("kind", "detail", "words"),
    [
        (FailureKind.NOT_FINITE, "", "computes NaN or Inf under openvino"),
        (FailureKind.SHAPE, "", "computes a wrong shape or type under openvino"),
        (FailureKind.REFUSED, "no kernel for #", "is refused under openvino"),
        (FailureKind.CRASHED, "SIGSEGV", "crashes (SIGSEGV) under openvino"),
        (FailureKind.HUNG, "", "hangs under openvino"),
        (FailureKind.OUT_OF_MEMORY, "", "runs out of memory under openvino"),
        (FailureKind.CHECK, "exit code 1", "fails the check"),
    ],
)
def test_every_kind_of_failure_has_its_words(kind: FailureKind, detail: str, words: str) -> None:
    culprit = dataclasses.replace(CULPRIT, kind=kind, reason="as said")
    assert printed(made(culprit, signature=Signature(kind, detail)))[0] == f"culprit: node 'conv_17' (Conv) {words}"


def test_every_kind_is_known() -> None:
    for kind in FailureKind:
        window = dataclasses.replace(CULPRIT, kind=kind, nodes=("a", "b"), ops=("Add", "Mul"))
        assert "2 nodes together (Add, Mul)" in printed(made(window))[0]
        assert printed(made(dataclasses.replace(CULPRIT, kind=kind)))[0].startswith("culprit: node 'conv_17' (Conv) ")


def test_a_window_lists_its_nodes() -> None:
    names = tuple(f"n{i}" for i in range(5))
    window = dataclasses.replace(
        CULPRIT, nodes=names, ops=("MatMul", "Add", "Relu", "Add", "Mul"), found_by="window", positions=(3, 4, 5, 6, 7)
    )
    lines = printed(made(window))
    assert lines[0] == "culprit: 5 nodes together (MatMul, Add, Relu, Mul) compute wrongly under openvino"
    found = text(made(window))
    assert "n0 (MatMul), n1 (Add), n2 (Relu), n3 (Add), n4 (Mul)" in found
    assert "found by shrinking a window: only together" in found
    assert "the failure is there when they are all that the target computes" in found
    wide = dataclasses.replace(window, nodes=names * 8, ops=("Add",) * 40)
    assert "and 32 more" in text(made(wide)) and len(printed(made(wide), 80)) <= 40


def test_several_culprits_are_a_table() -> None:
    other = dataclasses.replace(CULPRIT, nodes=("a", "b"), ops=("Add", "Mul"), reason="introduces 0.02", alone=True)
    found = made(dataclasses.replace(CULPRIT, inside="Mul 'next' in iteration 3"))
    found = dataclasses.replace(found, culprits=(*found.culprits, other))
    lines = printed(found)
    assert lines[0] == "2 culprits under openvino: each alone is enough"
    assert any(line.split()[:3] == ["conv_17", "Conv", "fails"] and "iteration 3:" in line for line in lines)
    assert any(" ".join(line.split()) == "a + 1 Add, Mul fails introduces 0.02" for line in lines)
    assert "each is to blame on its own" in text(made(None, culprits=(CULPRIT, dataclasses.replace(other, alone=None))))
    assert " sure " not in text(found)
    many = made(None, culprits=(CULPRIT,) * 50)
    assert "and 40 more" in text(many) and len(printed(many, 80)) <= 40


def test_a_check_is_called_that() -> None:
    culprit = dataclasses.replace(CULPRIT, kind=FailureKind.CHECK, found_by="cut")
    found = made(culprit, signature=Signature(FailureKind.CHECK), target="./try.sh {model}")
    assert printed(found)[0] == "culprit: node 'conv_17' (Conv) fails the check"
    assert printed(found)[1].endswith("; check ./try.sh {model}")
    assert printed(dataclasses.replace(found, culprits=(culprit, culprit)))[0].startswith("2 culprits by the check: ")


def test_what_does_not_hold_is_said() -> None:
    found = text(made(dataclasses.replace(CULPRIT, alone=False, cured=False)))
    cut = text(made(dataclasses.replace(CULPRIT, found_by="cut")))
    assert "alone the failure is there when it is all that the target computes" in cut
    assert "alone no failure when it is all that the target computes" in found
    assert "without the model is still not right when it is all that the reference computes" in found
    untried = printed(made(dataclasses.replace(CULPRIT, alone=None, cured=None)))
    assert not any(line.startswith(("alone", "without")) for line in untried)


def test_inside_a_body() -> None:
    loop = dataclasses.replace(CULPRIT, nodes=("loop",), ops=("Loop",), inside="Mul 'next' in iteration 3")
    lines = printed(made(loop))
    assert lines[0] == "culprit: node 'loop' (Loop) computes wrongly under openvino"
    assert any(line.split() == ["inside", "Mul", "'next'", "in", "iteration", "3"] for line in lines)


def test_a_flaky_failure_has_a_rate_and_a_confidence_that_is_not_rounded_up() -> None:
    flaky = dataclasses.replace(CULPRIT, confidence=0.99999)
    found = text(made(flaky, rate=0.3))
    assert "flaky it fails in 30% of its runs" in found
    assert "confidence 99.9 %" in found
    both = made(None, culprits=(flaky, flaky), rate=0.3)
    assert " sure " in text(both) and "99.9 %" in text(both)


def test_latent_faults_have_lines_of_their_own() -> None:
    latent = dataclasses.replace(CULPRIT, nodes=("gate",), ops=("Mul",), latent=True, alone=False)
    found = printed(made(None, latent=(latent,)))
    line = "latent: node 'gate' (Mul) computes wrongly, but no output shows it: introduces 0.31 relative L2,"
    assert any(row.startswith(line) for row in found) and found[0].startswith("culprit: node 'conv_17'")
    only = made(None, culprits=(), latent=(latent,), reason="the outputs agree", failure="", signature=None)
    assert printed(only)[0] == "1 latent fault: the model's outputs are right, but not what is inside"
    many = made(None, latent=(latent,) * 30)
    assert "latent: and 26 more" in text(many) and len(printed(many, 80)) <= 40


def test_nothing_and_undecided_say_why_and_what_helps() -> None:
    nothing = made(
        None, culprits=(), outcome=FindOutcome.NOTHING, reason="the outputs agree under openvino", failure="",
        signature=None, advice="try more --samples, or the inputs that fail with --feeds",
    )  # fmt: skip
    assert printed(nothing)[0] == "nothing to find: the outputs agree under openvino"
    assert "next: try more --samples" in text(nothing)
    assert "the model output logits" not in text(nothing)
    undecided = made(
        None, culprits=(), outcome=FindOutcome.UNDECIDED, reason="12 of 20 trials crashed", advice="give --timeout"
    )
    assert printed(undecided)[0] == "could not decide: 12 of 20 trials crashed"
    assert "next: give --timeout" in text(undecided) and "culprit" not in text(undecided)


def test_samples_and_notes() -> None:
    assert "340 nodes, 8 samples;" in text(made(samples=8))
    assert "1 node, 1 sample;" in text(made(elements=1))
    found = text(made(notes=tuple(f"note {i}" for i in range(9))))
    assert "note: note 3" in found and "note 4" not in found and "and 5 more" in found


BUSY = made(
    dataclasses.replace(
        CULPRIT, nodes=(LONG,) * 5, ops=("MatMul",) * 5, tensors=(LONG + "_output_0",) * 9,
        reason="r" * 900 + " " + LONG, inside=LONG, confidence=0.993,
    ),
    model="folder/" * 30 + "model.onnx", target=f"./runners/{LONG}.py:Mine:key=value", reference=f"{LONG}.py:Theirs",
    failure=LONG, rate=0.25, latent=(dataclasses.replace(CULPRIT, nodes=(LONG,)),), notes=(LONG, "two"),
    advice="a long way " * 40, steps=STEPS * 3, bundle="fault.zip", samples=100, elements=123_456,
)  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 120, 160, 200])
@pytest.mark.parametrize(
    "found",
    [FOUND, BUSY, dataclasses.replace(BUSY, culprits=BUSY.culprits * 12), dataclasses.replace(BUSY, culprits=())],
    ids=["plain", "busy", "many", "latent"],
)
def test_one_screen_whatever_the_width(found: Finding, width: int) -> None:
    lines = printed(found, width)
    assert all(cell_len(line) <= width for line in lines)
    assert len(lines) <= (24 if found is FOUND else 64 if width == 80 else 54)  # the busy ones are as bad as it gets
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize(
    "name", ["[red]x[/]", "a\nb", "\x1b[31mred\x1b[0m", "ノード" * 60, "x[0]\\", "\u202egnp.exe", ""]
)
def test_hostile_names_are_text(name: str) -> None:
    culprit = dataclasses.replace(CULPRIT, nodes=(name,), ops=(name,), tensors=(name,), reason=name, inside=name)
    whole = made(
        culprit, latent=(culprit,), model=name, target=name, reference=name, failure=name, advice=name, notes=(name,),
        bundle=name, signature=Signature(FailureKind.CRASHED, name),
    )  # fmt: skip
    for found in (whole, dataclasses.replace(whole, culprits=(culprit,) * 3)):
        lines = printed(found, 100)
        joined = "\n".join(lines)
        assert "\x1b" not in joined and "\u202e" not in joined
        assert all(cell_len(line) <= 100 for line in lines)
        if name.isascii() and name.isprintable():
            assert name in joined


@pytest.mark.parametrize("width", [10, 20, 41])
@pytest.mark.parametrize("name", [LONG, "ノード" * 30, "e\u0301" * 60, "short"])
def test_names_lose_their_middle(name: str, width: int) -> None:
    cut = middle(name, width)
    assert cell_len(cut) <= width
    assert cut[0] == name[0] and cut[-1] == name[-1]
    assert cut == name or "..." in cut
