"""What looking at a TensorRT engine's tensors adds to a run: time beyond the comparison itself, and tensors in memory.

``python -m tests.bench.bench_ladder [WIDTH [LAYERS]]`` runs a network of products on the simulated TensorRT, plain and
watched. The simulator reads its plan in every call of CUDA's, and takes its own time for showing a tensor; that is told
apart, since no device does either.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from surgeon_debug.feeds import make_feeds
from surgeon_debug.golden import GoldenReader
from surgeon_debug.layers import compare_models
from surgeon_debug.model_tensors import tensors_of
from surgeon_debug.pair import LayerOptions
from surgeon_debug.runners.catalogue import make_runner
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_debug.runners.tensorrt.debug_listener import Shown
from surgeon_debug.runners.tensorrt.watch import SEEN, Watch
from surgeon_debug.seen_tensor import Look, from_text
from surgeon_passes.graph import load
from tests.simulated_tensorrt import installed
from tests.simulated_tensorrt.models import model, weights
from tests.simulated_tensorrt.plan import Plan, write

_RUNS = 7
_ROWS = 256
_TARGET = "tensorrt:tf32=false"


class _Counted(Watch):
    """A watch that notes how long it looks and compares, and how many of the engine's tensors are alive at a time."""

    def __init__(self, runner: str, golden: Path, tensors: Path) -> None:
        super().__init__(runner, golden, tensors)
        self.looking = 0.0
        self.comparing = 0.0
        self.alive: list[Any] = []
        self.most = 0
        self.most_bytes = 0

    def _look(self, shown: Shown) -> None:
        start = time.perf_counter()
        self.alive = [held for held in self.alive if held() is not None]
        self.alive.append(weakref.ref(shown.value))
        self.most = max(self.most, len(self.alive))
        self.most_bytes = max(self.most_bytes, sum(held().nbytes for held in self.alive))
        super()._look(shown)
        self.looking += time.perf_counter() - start

    def _in_main_graph(self, *given: Any) -> list[Look]:
        start = time.perf_counter()
        try:
            return super()._in_main_graph(*given)
        finally:
            self.comparing += time.perf_counter() - start


def network(layers: int, width: int) -> onnx.ModelProto:
    """Products with a Softmax behind each, which no fusion takes away."""
    nodes, constants, now = [], [], "x"
    for i in range(layers):
        nodes.append(onnx.helper.make_node("MatMul", [now, f"w{i}"], [f"m{i}"], name=f"matmul{i}"))
        nodes.append(onnx.helper.make_node("Softmax", [f"m{i}"], [f"s{i}"], name=f"softmax{i}"))
        constants.append(weights(f"w{i}", width, width, seed=i))
        now = f"s{i}"
    return model(nodes, [("x", 1, [_ROWS, width])], [(now, 1, [_ROWS, width])], constants)


def measure(folder: Path, layers: int, width: int) -> dict[str, float]:
    """Seconds of a run, plain and watched, of which comparing; and what the watch had in memory.

    Args:
        folder: Where files may be written; the simulated TensorRT can be imported.
        layers: How many products.
        width: Of each.
    """
    path, golden, listed = folder / "net.onnx", folder / "net.golden", folder / "tensors.json"
    onnx.save(network(layers, width), str(path))
    feeds = make_feeds(load(path), seed=0, sample=0, dims=None)
    once = LayerOptions(isolate=False, whole=False, follow=False)
    compare_models(
        path,
        target="onnxruntime",
        reference="onnxruntime:optimize=none",
        feeds=[feeds],
        layers=once,
        save_reference=golden,
    )
    tensors_of(path, feeds, once, allow_external=False).listed.write(listed)
    output = f"s{layers - 1}"
    plain = make_runner(parse_runner(_TARGET)[0])
    watch = _Counted(f"{_TARGET},debug=unfused", golden, listed)
    try:
        plain.prepare(path, [output])
        watch.prepare(path, [output, SEEN])
        seconds: list[tuple[float, ...]] = []
        looks: Sequence[Look] = ()
        for _ in range(_RUNS):
            start = time.perf_counter()
            plain.run(feeds)
            middle = time.perf_counter()
            watch.looking = watch.comparing = 0.0
            looks = from_text(str(watch.run(feeds)[SEEN][0]))
            end = time.perf_counter()
            seconds.append((middle - start, end - middle, watch.looking, watch.comparing))
    finally:
        watch.close()
    with GoldenReader(golden) as reader:
        mapped = _mapped(reader.get(0, output))
    alone, watched, looking, comparing = (min(column) for column in zip(*seconds, strict=True))
    return {
        "plain": alone,
        "watched": watched,
        "comparing": comparing,
        "showing": watched - looking - alone,
        "added": watched - comparing - alone,
        "tensors": len(looks),
        "most": watch.most,
        "most_bytes": watch.most_bytes,
        "largest": max(look.nbytes for look in looks),
        "mapped": float(mapped),
    }


def _mapped(value: Any) -> bool:
    """Whether a value lies in a file that is mapped, so that it takes no memory of its own."""
    while isinstance(value, np.ndarray):
        if isinstance(value, np.memmap):
            return True
        value = value.base
    return isinstance(value, memoryview) or type(value).__name__ == "mmap"


def main() -> None:
    """Measure and print."""
    width, layers = (int(text) for text in (sys.argv[1:] + ["1024", "40"][len(sys.argv) - 1 :])[:2])
    sys.path.insert(0, str(installed("11.4")))
    with tempfile.TemporaryDirectory() as held:
        os.environ.update(write(Plan(hidden_share=0.0), Path(held) / "plan.json"))
        found = measure(Path(held), layers, width)
    plain, added = found["plain"], found["added"]
    print(f"plain run {plain * 1e3:.1f} ms, watched {found['watched'] * 1e3:.1f} ms, {found['tensors']:.0f} tensors")
    print(f"of which comparing {found['comparing'] * 1e3:.1f} ms; all else adds {added * 1e3:.1f} ms,", end=" ")
    print(f"{added / plain:.2f} of the plain run")
    print(f"of that the simulator's own, with copies, {found['showing'] * 1e3:.1f} ms")
    print(f"at most {found['most']:.0f} tensors, {found['most_bytes']:,.0f} bytes, in memory at a time")
    print(f"the largest has {found['largest']:,.0f}; the reference's are {'' if found['mapped'] else 'not '}mapped")


if __name__ == "__main__":
    main()
