"""How fast two tensors are compared: the screen, three tensors in one pass, the full set, and Polygraphy's comparison.

Speed is bytes of all arrays together over the best of several times, on one thread: BLAS gets one, numpy uses one
anyway. Times are those of the processor, so that neighbours count less; read ratios all the same.

    python tests/bench/bench_metrics.py [--elements 4194304] [--repeat 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")})

import ml_dtypes
import numpy as np
from measure import table

from surgeon_debug.compare import compare
from surgeon_debug.screen import Screen
from surgeon_debug.triple import Triple

TYPES: dict[str, Any] = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "int8": np.int8,
    "int32": np.int32,
    "int64": np.int64,
}
SHAPE = (8, 64, -1, 64)


def best(work: Callable[[], object], repeat: int) -> float:
    """The shortest processor time of several runs, in seconds."""
    times = []
    for _ in range(repeat):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def pairs(name: str, elements: int) -> dict[str, tuple[Any, Any]]:
    """Arrays of one type: equal, with one element in a thousand off, and with all off."""
    rng = np.random.default_rng(0)
    scale = 30 if "int" in name else 1
    base = rng.standard_normal(elements).astype(np.float32) * scale
    other = base * np.float32(1.001) + np.float32(2e-3 if scale == 1 else 1.5)
    reference, target = (x.astype(TYPES[name]).reshape(SHAPE) for x in (base, other))
    near = reference.copy()
    near.reshape(-1)[::1000] = target.reshape(-1)[::1000]
    return {"equal": (reference, reference.copy()), "nearly": (reference, near), "all off": (reference, target)}


def screen(reference: Any, target: Any) -> None:
    Screen().add(reference, target)


def polygraphy(reference: Any, target: Any) -> None:
    """Polygraphy's comparison of one output, as ``polygraphy run`` does it."""
    from polygraphy.comparator import CompareFunc, IterationResult
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    warnings.simplefilter("ignore")
    results = [IterationResult({"x": array}, runner_name=str(i)) for i, array in enumerate((reference, target))]
    CompareFunc.simple(check_error_stat="max")(*results)


def measure_type(name: str, elements: int, repeat: int) -> dict[str, float]:
    """GB/s of each measurement of one type."""
    found: dict[str, float] = {}
    made = pairs(name, elements)
    both = 2 * made["equal"][0].nbytes / 1e9
    for kind, (r, t) in made.items():
        found[f"screen, {kind}"] = both / best(lambda r=r, t=t: screen(r, t), repeat)  # type: ignore[misc]
    r, t = made["all off"]
    near = made["nearly"][1]
    for kind, i in (("isolated equal", r.copy()), ("isolated nearly", near), ("all off", _other(t))):
        found[f"triple, {kind}"] = 1.5 * both / best(lambda i=i: Triple().add(r, t, i), repeat)  # type: ignore[misc]
    found["full set"] = both / best(lambda: compare(r, t), max(2, repeat // 2))
    try:
        found["polygraphy"] = both / best(lambda: polygraphy(r, t), 2)
    except Exception as error:  # noqa: BLE001  (what it cannot compare is part of the result)
        print(f"polygraphy cannot compare {name}: {type(error).__name__}: {str(error).splitlines()[0][:80]}")
    return found


def _other(array: Any) -> Any:
    moved = array.copy()
    flat = moved.reshape(-1)
    flat[:-1] = array.reshape(-1)[1:]
    return moved


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--elements", type=int, default=1 << 22, help="of one array; a multiple of 32768")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--types", nargs="*", default=list(TYPES), choices=list(TYPES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {name: measure_type(name, options.elements, options.repeat) for name in options.types}
    kinds = list(next(iter(found.values())))
    rows = [["GB/s of compared data", *found]]
    rows += [
        [kind, *(f"{numbers[kind]:.3g}" if kind in numbers else "-" for numbers in found.values())] for kind in kinds
    ]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
