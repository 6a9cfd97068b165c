"""Tactics and the timing cache of the simulator, and both dialects of the log."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest

from tests.simulated_tensorrt import PROFILES, assemble, drive, models
from tests.simulated_tensorrt.plan import Plan

SHAPES = [{"x": ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}]
EDITABLE = ("EDITABLE_TIMING_CACHE",)
STRICT = ("EDITABLE_TIMING_CACHE", "ERROR_ON_TIMING_CACHE_MISS")


@pytest.fixture(params=PROFILES)
def trt(request: pytest.FixtureRequest) -> Any:
    return assemble.module(request.param, Plan())


def layers_of(trt: Any, built: drive.Built) -> list[dict[str, Any]]:
    assert built.blob is not None, built.errors
    layers: list[dict[str, Any]] = json.loads(drive.Session(trt, built.blob).information())["Layers"]
    return layers


def names_of(trt: Any, built: drive.Built) -> list[str]:
    return [layer["Name"] for layer in layers_of(trt, built) if layer["LayerType"] != "Reformat"]


def pieces(layer: dict[str, Any]) -> list[str]:
    return re.findall(r"\[ONNX Layer: ([^\]]*)\]", layer["Metadata"])


def table(built: drive.Built, op: str) -> list[str]:
    """Hashes of the table of an op, fastest first."""
    lines = [line.removeprefix("(foreignNode) ") for line in built.lines]
    start = next(i for i, line in enumerate(lines) if line.startswith(f"Autotuning op {op}("))
    rows = []
    for line in lines[start + 3 :]:
        if line.startswith("The selected"):
            break
        rows.append(line.split(", ")[5].rstrip(","))
    return rows


def key_of(built: drive.Built, op: str) -> str:
    line = next(line for line in built.lines if f"Autotuning op {op}(" in line)
    return re.findall(r"key: (0x[0-9a-f]{32})", line)[0]


def test_the_log_tells_tables_of_what_was_timed(trt: Any) -> None:
    first = drive.build(trt, models.mlp())
    ops = [line for line in first.lines if "Autotuning op" in line]
    assert [re.findall(r"op (\w+)\(", line)[0] for line in ops] == ["matmul0", "matmul1", "matmul2"]
    assert all(line.startswith("(foreignNode) ") for line in ops)
    assert len(set(first.tactics)) == 3
    chosen = first.tactics[key_of(first, "matmul0")]
    assert table(first, "matmul0")[0] == f"0x{chosen:x}"
    again = drive.build(trt, models.mlp(), cache=bytes(first.cache.serialize()))
    assert not any("Autotuning op" in line for line in again.lines)
    assert again.tactics == first.tactics


def test_a_pinned_tactic_is_used_and_the_strict_build_replays(trt: Any) -> None:
    first = drive.build(trt, models.mlp())
    key, other = key_of(first, "matmul1"), int(table(first, "matmul1")[1], 16)

    def pin(cache: Any) -> None:
        assert cache.update(trt.TimingCacheKey.parse(key), trt.TimingCacheValue(other, 0.01))

    pinned = drive.build(trt, models.mlp(), flags=STRICT, cache=bytes(first.cache.serialize()), edit=pin)
    assert pinned.tactics == {**first.tactics, key: other}
    kernels = {layer["Name"]: layer.get("TacticName") for layer in layers_of(trt, pinned)}
    before = {layer["Name"]: layer.get("TacticName") for layer in layers_of(trt, first)}
    assert {name for name in kernels if kernels[name] != before[name]} <= {"matmul1_myl0_2"}


def test_misses_and_unusable_tactics_end_a_strict_build(trt: Any) -> None:
    missed = drive.build(trt, models.mlp(), flags=STRICT)
    assert missed.blob is None and "errorOnMiss" in missed.errors[-1]
    first = drive.build(trt, models.mlp())
    key = key_of(first, "matmul1")

    def spoil(cache: Any) -> None:
        assert cache.update(trt.TimingCacheKey.parse(key), trt.TimingCacheValue(0x1234, 0.01))

    unusable = drive.build(trt, models.mlp(), cache=bytes(first.cache.serialize()), edit=spoil)
    assert unusable.blob is None and key in unusable.errors[-1]


def test_a_miss_can_be_let_through() -> None:
    trt = assemble.module("11.4", Plan(misses_let_through=1))
    first = drive.build(trt, models.mlp())
    key = key_of(first, "matmul1")

    def forget(cache: Any) -> None:
        assert cache.update(trt.TimingCacheKey.parse(key), trt.TimingCacheValue(0, math.nan))
        assert key not in map(str, cache.queryKeys())

    assert drive.build(trt, models.mlp(), flags=STRICT, cache=bytes(first.cache.serialize()), edit=forget).blob


def test_rules_of_the_cache(trt: Any) -> None:
    first = drive.build(trt, models.mlp())
    cache, parse, value = first.cache, trt.TimingCacheKey.parse, trt.TimingCacheValue
    missing = parse("0x" + "00" * 16)
    assert cache.query(missing).tacticHash == 2**64 - 1
    assert not cache.update(missing, value(1, 1.0))
    known = cache.queryKeys()[0]
    assert not cache.update(known, value(2**64 - 1, 1.0))
    assert cache.update(known, value(0x99, 1.0))  # whatever hash: the next build will see
    other = drive.build(trt, models.mlp(1)).cache
    assert other.combine(cache, False) and other.query(known).tacticHash == 0x99
    assert other.reset() and other.queryKeys() == []


def test_a_cache_of_another_device_or_version_is_refused() -> None:
    here = assemble.module("11.4", Plan())
    blob = bytes(drive.build(here, models.mlp()).cache.serialize())
    for trt in (assemble.module("11.4", Plan(device="Other GPU")), assemble.module("10.16", Plan())):
        with pytest.raises(ValueError, match="refused"):
            drive.build(trt, models.mlp(), cache=blob)
        config = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR)).create_builder_config()
        assert config.set_timing_cache(config.create_timing_cache(blob), True)
    assert config.create_timing_cache(b"rubbish") is None
    warning = assemble.module("11.4", Plan(device="Other GPU", mismatch_warns=True))
    built = drive.build(warning, models.mlp(), cache=blob)
    assert any("another device" in line for line in built.lines) and any(
        "Autotuning op" in line for line in built.lines
    )


@pytest.mark.parametrize(
    "settings", [{"builder_optimization_level": 0}, {"flags": (*EDITABLE, "DISABLE_TIMING_CACHE")}]
)
def test_level_nought_and_a_flag_ignore_the_cache(trt: Any, settings: dict[str, Any]) -> None:
    blob = bytes(drive.build(trt, models.mlp()).cache.serialize())
    assert any("Autotuning op" in line for line in drive.build(trt, models.mlp(), cache=blob, **settings).lines)


def test_without_the_flag_nobody_can_ask_for_keys(trt: Any) -> None:
    built = drive.build(trt, models.mlp(), flags=())
    assert built.tactics == {}
    assert any(re.search(r"Autotuning op matmul0: \[ONNX", line) for line in built.lines)
    blob = bytes(built.cache.serialize())
    assert not any("Autotuning" in line for line in drive.build(trt, models.mlp(), flags=(), cache=blob).lines)
    assert any("Autotuning" in line for line in drive.build(trt, models.mlp(), cache=blob).lines)


def test_the_classic_dialect_shows_no_keys() -> None:
    trt = assemble.module("10.16", Plan(classic=True))
    built = drive.build(trt, models.conv_net(), profiles=SHAPES)
    assert [key_of(built, "fc")] == list(built.tactics)
    assert any("Timing Runner: conv1 + relu1 (CaskConvolution[0x" in line for line in built.lines)
    assert any(re.match(r"Tactic Name: sm80_\S+ Tactic: 0x[0-9a-f]{16} Time: [\d.]+$", line) for line in built.lines)
    assert any("Chose Runner Type: CaskConvolution Tactic: 0x" in line for line in built.lines)


def test_a_changed_layout_changes_the_key_of_the_neighbour(trt: Any) -> None:
    first = drive.build(trt, models.conv_net(), profiles=SHAPES)
    key = key_of(first, "conv1 + relu1")
    rows = [line for line in first.lines if "xmma_fprop" in line]
    hashes = table(first, "conv1 + relu1")
    layout = {h: "nhwc" in next(row for row in rows if h in row) for h in hashes}
    chosen = f"0x{first.tactics[key]:x}"
    other = next(h for h in hashes if layout[h] != layout[chosen])

    def pin(cache: Any) -> None:
        assert cache.update(trt.TimingCacheKey.parse(key), trt.TimingCacheValue(int(other, 16), 0.01))

    blob = bytes(first.cache.serialize())
    assert drive.build(trt, models.conv_net(), profiles=SHAPES, flags=STRICT, cache=blob, edit=pin).blob is None
    free = drive.build(trt, models.conv_net(), profiles=SHAPES, cache=blob, edit=pin)
    assert len(free.tactics) == len(first.tactics) + 1
    kinds = [layer["LayerType"] for layer in layers_of(trt, free)]
    assert kinds.count("Reformat") != [layer["LayerType"] for layer in layers_of(trt, first)].count("Reformat")


def test_builds_differ_when_times_are_noisy() -> None:
    noisy = assemble.module("11.4", Plan(timing_seed=None, timing_noise=0.5))
    assert len({str(drive.build(noisy, models.mlp()).tactics) for _ in range(5)}) > 1
    seeded = assemble.module("11.4", Plan(timing_seed=4, timing_noise=0.5))
    assert len({str(drive.build(seeded, models.mlp()).tactics) for _ in range(3)}) == 1


def test_two_tactics_of_one_layer_are_not_bitwise_equal(trt: Any) -> None:
    first = drive.build(trt, models.mlp(1))
    key, other = key_of(first, "matmul0"), int(table(first, "matmul0")[1], 16)

    def pin(cache: Any) -> None:
        cache.update(trt.TimingCacheKey.parse(key), trt.TimingCacheValue(other, 0.01))

    second = drive.build(trt, models.mlp(1), cache=bytes(first.cache.serialize()), edit=pin)
    assert first.blob and second.blob
    x = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)
    a, b = (drive.Session(trt, blob).run({"x": x})["t0"] for blob in (first.blob, second.blob))
    assert (a != b).any() and np.abs(a - b).max() < 1e-6


def test_less_workspace_leaves_tactics_out() -> None:
    trt = assemble.module("10.16", Plan(classic=True))

    def tried(workspace: int) -> list[str]:
        logger = drive.logger_of(trt)
        trt.IBuilderConfig._journal._logger = None
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        assert trt.OnnxParser(network, logger).parse(models.conv_net(2).SerializeToString())
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
        assert builder.build_serialized_network(network, config) is not None
        return [line for _, line in logger.lines if line.startswith("Tactic Name")]

    small, large = tried(1 << 10), tried(1 << 30)
    assert any("skipped. Scratch requested: 1048576, available: 1024" in line for line in small)
    assert len(small) == len(large) and not any("skipped" in line for line in large)
