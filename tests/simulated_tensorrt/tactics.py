"""Kernels: which ones an operator can use, what they cost, and under which key the choice is remembered."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
from typing import Any

_TILES = ((32, 32, 64), (64, 32, 64), (64, 64, 32), (64, 64, 64), (128, 64, 32), (128, 128, 32), (256, 64, 32))
_TYPES = {"FLOAT": "f32f32", "HALF": "f16f16", "BF16": "bf16bf16", "INT8": "i8i8"}


@dataclasses.dataclass(frozen=True)
class Tactic:
    """One implementation that can be chosen."""

    place: int
    """Its number in the table."""
    kernel: str
    """Its kernel; two tactics may share one."""
    hash: int
    """What identifies it."""
    time: float
    """Undisturbed milliseconds."""
    layout: str
    """linear, or channels_last: that one wants its input reformatted."""
    scratch: int
    """Bytes of workspace that it needs."""

    @property
    def text(self) -> str:
        """Its hash as written in tables."""
        return f"0x{self.hash:x}"


def _number(*parts: Any) -> int:
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def key_of(op: str, parts: dict[str, Any]) -> str:
    """The 128-bit key of an op: name, shapes, types, flags that matter, device and profile."""
    text = json.dumps({"op": op, **parts}, sort_keys=True)
    return "0x" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def tactics_of(kind: str, dtype: str, tf32: bool, volume: int, signature: str, most: int) -> list[Tactic]:
    """All tactics of an op by undisturbed time, at least one.

    Args:
        kind: conv or product.
        dtype: Member of DataType of its operands.
        tf32: Whether kernels may round operands to 19 bits.
        volume: Elements of its output; more take longer.
        signature: What makes times of two ops differ.
        most: How many at most; -1 for all.
    """
    rng = random.Random(_number("tactics", kind, signature))
    count = rng.randint(3, 8)
    mode = "tf32f32" if dtype == "FLOAT" and tf32 else "f32f32" if dtype == "FLOAT" else _TYPES.get(dtype, "f32f32")
    found = []
    for place in range(count):
        # One kernel in a table of four and more stands there twice, as in real tables: with two hashes.
        variant = int(place == count - 1 and count >= 4)
        tile = _TILES[(place - variant) % len(_TILES)]
        layout = "channels_last" if kind == "conv" and (place - variant) % 3 == 2 else "linear"
        kernel = _kernel(kind, dtype, mode, tile, layout, place - variant)
        time = (0.008 + 1e-7 * volume) * (1 + 0.12 * place + 0.08 * rng.random())
        width = 64 if kind == "conv" else 52
        scratch = (0, 0, 1 << 20, 0, 8 << 20)[place % 5]
        found.append(Tactic(place, kernel, _number(kernel, variant) >> (64 - width), time, layout, scratch))
    rng.shuffle(found)
    times = sorted(t.time for t in found)
    order = [dataclasses.replace(tactic, time=time) for tactic, time in zip(found, times, strict=True)]
    return order[: max(1, most)] if most >= 0 else order


def _kernel(kind: str, dtype: str, mode: str, tile: tuple[int, int, int], layout: str, place: int) -> str:
    a, b, c = tile
    base = f"{_TYPES.get(dtype, 'f32f32')}_{mode}_{'f32' if dtype == 'FLOAT' else 'f16'}"
    tail = f"tilesize{a}x{b}x{c}_stage{3 + place % 3}_warpsize2x{1 + place % 2}x1"
    if kind == "conv":
        order = "nhwckrsc_nhwc" if layout == "channels_last" else "nchwkcrs_nchw"
        return f"sm80_xmma_fprop_implicit_gemm_{base}_{order}_{tail}_g1_tensor16x8x8"
    return f"sm80_xmma_gemm_{base}_{'tn' if place % 2 else 'nn'}_n_{tail}_tensor16x8x8"


def measured(tactics: list[Tactic], noise: float, seed: Any) -> list[tuple[Tactic, float]]:
    """Tactics with measured times, fastest first."""
    rng = random.Random(_number("noise", seed)) if seed is not None else random.Random()
    times = [(tactic, tactic.time * math.exp(rng.gauss(0, noise))) for tactic in tactics]
    return sorted(times, key=lambda pair: pair[1])
