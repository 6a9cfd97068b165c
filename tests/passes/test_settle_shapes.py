"""The more certain, then the more telling of two statements about a value counts."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from surgeon_passes.settle_shapes import fill, merge, settle, type_text, without_made_up


def fact(text: str) -> ir.TypeAndShape:
    """``FLOAT[N,4]``, ``FLOAT``, or nothing at all."""
    if not text:
        return ir.TypeAndShape(None, None)
    name, _, dims = text.rstrip("]").partition("[")
    shape = None
    if "[" in text:
        parts = [d for d in dims.split(",") if d]
        shape = ir.Shape([None if d == "?" else int(d) if d.lstrip("-").isdigit() else d for d in parts])
    return ir.TypeAndShape(ir.TensorType(ir.DataType[name]), shape)


@pytest.mark.parametrize(
    ("declared", "found", "expected", "wrong"),
    [
        ("", "FLOAT[2]", "FLOAT[2]", False),
        ("FLOAT[2]", "", "FLOAT[2]", False),
        ("FLOAT", "FLOAT[?,N]", "FLOAT[?,N]", False),
        ("FLOAT[2,3]", "FLOAT", "FLOAT[2,3]", False),
        ("FLOAT[2,3]", "INT64[2,3]", "INT64[2,3]", True),
        ("FLOAT[2]", "FLOAT[2,3]", "FLOAT[2,3]", True),
        ("FLOAT[1,4]", "FLOAT[N,4]", "FLOAT[N,4]", True),
        ("FLOAT[1,4]", "FLOAT[2,4]", "FLOAT[2,4]", True),
        ("FLOAT[1,4]", "FLOAT[unk__3,4]", "FLOAT[1,4]", False),
        ("FLOAT[1,4]", "FLOAT[?,4]", "FLOAT[1,4]", False),
        ("FLOAT[M,4]", "FLOAT[3,4]", "FLOAT[3,4]", False),
        ("FLOAT[M,4]", "FLOAT[unk__3,4]", "FLOAT[M,4]", False),
        ("FLOAT[M,N]", "FLOAT[N,M]", "FLOAT[N,M]", False),
        ("FLOAT[2*N]", "FLOAT[N*2]", "FLOAT[2*N]", False),
        ("FLOAT[unk__0]", "FLOAT[unk__5]", "FLOAT[unk__5]", False),
        ("FLOAT[unk__0]", "FLOAT[?]", "FLOAT[unk__0]", False),
        ("FLOAT[-1]", "FLOAT[3]", "FLOAT[3]", False),
        ("FLOAT[]", "FLOAT[]", "FLOAT[]", False),
    ],
)
def test_settle(declared: str, found: str, expected: str, wrong: bool) -> None:
    settled = settle(fact(declared), fact(found))
    assert type_text(settled.fact) == expected
    assert bool(settled.wrong) is wrong


def test_fill_never_alters() -> None:
    assert type_text(fill(fact("FLOAT[1,?]"), fact("FLOAT[N,4]"))) == "FLOAT[1,4]"
    assert type_text(fill(fact("FLOAT"), fact("FLOAT[N]"))) == "FLOAT[N]"
    assert type_text(fill(fact("FLOAT[2]"), fact("FLOAT[N,4]"))) == "FLOAT[2]"
    assert type_text(fill(fact(""), fact("FLOAT[N]"))) == "FLOAT[N]"


def test_merge_takes_the_best_of_both() -> None:
    both = merge(fact("FLOAT[unk__0,4]"), fact("FLOAT[2*N,?]"))
    assert both is not None and type_text(both) == "FLOAT[2*N,4]"
    first = merge(fact("FLOAT[4]"), fact("INT64[4]"))
    assert first is not None and type_text(first) == "FLOAT[4]"


def test_made_up_symbols_are_unknown_sizes_to_others() -> None:
    assert type_text(without_made_up(fact("FLOAT[unk__0,N,2]"))) == "FLOAT[?,N,2]"
