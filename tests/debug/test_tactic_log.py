"""The verbose log of a build: both grammars, what is cut short, and how fast a large one is read."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon_debug.runners.tensorrt.tactic_log import (
    Dialect,
    TacticTable,
    normal_hash,
    onnx_nodes,
    parse_tactic_log,
    read_tactic_log,
)
from surgeon_debug.runners.tensorrt.tactic_tables import by_key, diff_tactics

# Written by hand in the grammar of public logs; see the notes on tactics.
EDITABLE = """\
[V] [TRT] Some line about something else, with, many, commas, in, it, 0x12,
[V] [TRT]  (foreignNode) Autotuning op /layer.0/MatMul_myl5_3(key: 0xE5C222CD6B9E29CBE66C8BEC07CB6A07): \
[ONNX Layer: /layer.0/MatMul]\x1f[ONNX Layer: /layer.0/Add[1]]
[V] [TRT]  (foreignNode) Sorted table of all evaluated tactics:
[V] [TRT]  (foreignNode) tactic_id, cost(in ms), cost/fastest_cost, prediction_correlation, kernel_name, \
tactic_hash, tunable_parameter
[V] [TRT]  (foreignNode)    4, 0.0126784, 1.00000, 0.84378, sm80_xmma_gemm_tilesize32x32x64, 0x2c80ce2f5c4a6,
[V] [TRT]  (foreignNode)   34, 0.0130784, 1.03155, 4711.5, sm80_xmma_gemm_tilesize32x32x64, 0x0650DE5B566787, split_k=3,
[V] [TRT]  (foreignNode)   35, nan, inf, -nan, sm86_xmma_gemm_tilesize64x64x64, 0xfedcba9876543210,
[V] [TRT]  (foreignNode) The selected tactic is (tactic hash, cost(in ms)):0x2c80ce2f5c4a6, 0.0126784
[V] [TRT]  (foreignNode) Writing the best tactic (0x2c80ce2f5c4a6) to cache
Autotuning op plain: [ONNX Layer: plain]
Sorted table of all evaluated tactics:
tactic_id, cost(in ms), cost/fastest_cost, prediction_correlation, kernel_name, tactic_hash, tunable_parameter
   1, 0.002, 1.00000, 1.0, k1, 0x1,
The selected tactic is (tactic hash, cost(in ms)):0x1,  0.002
"""
CLASSIC = """\
[11/22/2026-10:00:00] [V] [TRT] ConvReluFusion: Fusing conv1 with relu1
[11/22/2026-10:00:01] [V] [TRT] --------------- Timing Runner: conv1 + relu1 (CaskConvolution[0x80000009])
[11/22/2026-10:00:01] [V] [TRT] Tactic Name: sm80_xmma_fprop_a Tactic: 0x017a89ce2d82b850 Time: 0.0087
[11/22/2026-10:00:01] [V] [TRT] Tactic Name: sm80_xmma_fprop_b Tactic: 0xdc1c841ef1cd3e8e \
skipped. Scratch requested: 4194304, available: 1048576
[11/22/2026-10:00:01] [V] [TRT] conv1 + relu1 (CaskConvolution[0x80000009]) profiling completed in 0.1 seconds. \
Fastest Tactic: 0x017a89ce2d82b850 Time: 0.0087
[11/22/2026-10:00:01] [V] [TRT] --------------- Timing Runner: conv1 + relu1 (CaskFlattenConvolution[0x80000036])
[11/22/2026-10:00:01] [V] [TRT] Skipping CaskFlattenConvolution: No valid tactics for conv1 + relu1
[11/22/2026-10:00:01] [V] [TRT] >>>>>>>>>>>>>>> Chose Runner Type: CaskConvolution Tactic: 0x017a89ce2d82b850
[11/22/2026-10:00:02] [V] [TRT] --------------- Timing Runner: fc (CudnnConvolution)
[11/22/2026-10:00:02] [V] [TRT] fc Set Tactic Name: old_kernel Tactic: 0xdc1c841ef1cd3e8e
[11/22/2026-10:00:02] [V] [TRT] Tactic: 0xdc1c841ef1cd3e8e Time: 0.0422516
[11/22/2026-10:00:02] [V] [TRT] Fastest Tactic: 0xdc1c841ef1cd3e8e Time: 0.0422516
"""


def test_the_editable_dialect() -> None:
    log = parse_tactic_log(EDITABLE)
    first, plain = log.tables
    assert first.op == "/layer.0/MatMul_myl5_3"
    assert first.key == "0xe5c222cd6b9e29cbe66c8bec07cb6a07"
    assert first.nodes == ("/layer.0/MatMul", "/layer.0/Add[1]")
    assert [row.hash for row in first.rows] == ["0x2c80ce2f5c4a6", "0x650de5b566787", "0xfedcba9876543210"]
    assert [row.milliseconds for row in first.rows] == [0.0126784, 0.0130784, None]
    assert first.rows[0].kernel == first.rows[1].kernel
    assert first.rows[1].tunable == "split_k=3"
    assert first.chosen == "0x2c80ce2f5c4a6"
    assert first.cached
    assert (plain.op, plain.key, plain.chosen, plain.cached) == ("plain", "", "0x1", False)
    assert log.dialects == (Dialect.EDITABLE,)
    assert not log.unfinished


def test_the_classic_dialect() -> None:
    log = parse_tactic_log(CLASSIC)
    conv, flat, fc = log.tables
    assert log.dialects == (Dialect.CLASSIC,)
    assert (conv.op, conv.runner, conv.key) == ("conv1 + relu1", "CaskConvolution", "")
    assert [row.kernel for row in conv.rows] == ["sm80_xmma_fprop_a", "sm80_xmma_fprop_b"]
    assert conv.rows[1].milliseconds is None
    assert "4194304" in conv.rows[1].note
    assert conv.chosen == "0x17a89ce2d82b850"
    assert (flat.rows, flat.chosen) == ((), "")
    assert (fc.rows[0].kernel, fc.rows[0].milliseconds, fc.chosen) == ("old_kernel", 0.0422516, "")
    assert log.fusions == ("ConvReluFusion: Fusing conv1 with relu1",)


def test_a_log_cut_anywhere_is_read_as_far_as_it_goes() -> None:
    whole = parse_tactic_log(EDITABLE + CLASSIC)
    assert whole.dialects == (Dialect.EDITABLE, Dialect.CLASSIC)
    text = EDITABLE + CLASSIC
    for end in range(0, len(text), 7):
        part = parse_tactic_log(text[:end])
        assert len(part.tables) <= len(whole.tables)
        for ours, theirs in zip(part.tables[:-1], whole.tables, strict=False):
            assert ours.rows == theirs.rows
    cut = parse_tactic_log(EDITABLE[: EDITABLE.index("The selected")])
    assert [table.op for table in cut.unfinished] == ["/layer.0/MatMul_myl5_3"]


@given(st.text(max_size=400))
def test_whatever_is_in_a_log_does_no_harm(text: str) -> None:
    parse_tactic_log(text)
    parse_tactic_log(EDITABLE.replace("0x2c80ce2f5c4a6", text))


def test_names_of_nodes_may_hold_brackets_and_stand_side_by_side() -> None:
    assert onnx_nodes("[ONNX Layer: a]\x1e[ONNX Layer: b[2]][ONNX Layer: a]") == ("a", "b[2]")
    assert onnx_nodes("") == ()


def test_a_hash_has_one_spelling() -> None:
    assert normal_hash("0x0000ABC") == normal_hash(0xABC) == "0xabc"
    with pytest.raises(ValueError, match="invalid"):
        normal_hash("fast")


def test_a_table_survives_json(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "build.log").write_bytes(EDITABLE.encode() + b"\xff\xfe\n" + CLASSIC.encode())
    for table in read_tactic_log(tmp_path / "build.log").tables:
        assert TacticTable.from_json(table.to_json()) == table


def test_builds_are_compared_by_key_and_then_by_op() -> None:
    log = parse_tactic_log(EDITABLE)
    key = log.tables[0].key
    first = by_key(log.tables, {key: "0x2c80ce2f5c4a6", "0x01": "0x7"})
    second = by_key((), {key.upper().replace("X", "x"): "0x650de5b566787", "0x02": "0x7"})
    diff = diff_tactics(first, second)
    assert [(x.op, x.before, x.after) for x in diff.changed] == [
        ("/layer.0/MatMul_myl5_3", "0x2c80ce2f5c4a6", "0x650de5b566787")
    ]
    # The second build timed nothing; the first one's log knows the kernel.
    assert diff.changed[0].after_kernel == "sm80_xmma_gemm_tilesize32x32x64"
    assert [x.key for x in diff.only_first] == ["0x01"]
    assert [x.key for x in diff.only_second] == ["0x02"]
    assert diff_tactics(first, first).equal
    moved = by_key(log.tables, {"0x05": "0x1"})
    named = {**moved, "0x05": first[key].__class__("0x05", first[key].op, (), (), "0x1")}
    assert [x.op for x in diff_tactics({key: first[key]}, named).rekeyed] == ["/layer.0/MatMul_myl5_3"]


def test_ten_thousand_layers_take_no_more_than_a_second() -> None:
    head, *rows = EDITABLE.split("\n")[1:7]
    table = "\n".join([head, *rows, *[rows[2]] * 5, *EDITABLE.split("\n")[7:9]])
    text = "\n".join(table.replace("e5c2".upper(), f"{i:04x}") for i in range(10_000))
    best = min(_seconds(text) for _ in range(3))
    assert best < 1.0


def _seconds(text: str) -> float:
    begun = time.process_time()
    assert len(parse_tactic_log(text).tables) == 10_000
    return time.process_time() - begun
