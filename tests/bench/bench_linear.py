"""How the cost of each pass grows from 2,000 to 20,000 nodes; linear is 10 x, more than 12 x is a finding.

Each pass runs once, on a model of its own in a process of its own, as it does on the command line; loading is not
counted. The smallest processor time of three such processes counts. (Run again and again in one process, a graph of
2,000 nodes stays in the processor's cache and one of 20,000 does not, which says more about caches than about passes.)

``python tests/bench/bench_linear.py [PASS ...] [--kinds chain branching mixed]``
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import table

SIZES = (2_000, 20_000)
LIMIT = 12.0
OPTIONS = {
    "freeze-shapes": "freeze-shapes:batch=2",
    "convert-opset": "convert-opset:to=21",
    "expose-tensors": "expose-tensors:all=true",
    "onnx-ir": "onnx_ir.passes.common.IdentityEliminationPass",
    "extract": "",
    "gs": "",
}
"""The text of passes that need options; empty for those that this benchmark leaves out."""


def time_pass(text: str, kind: str, size: int) -> dict[str, Any]:
    """Processor seconds of one pass on one graph, and how many changes it made; run in a child process."""
    from build_large import build_graph

    from surgeon_passes import graph
    from surgeon_passes.catalogue import parse_step
    from surgeon_passes.contract import ChangeLog

    step = parse_step(text)
    model, log = graph.from_proto(build_graph(kind, size)), ChangeLog()
    gc.disable()  # as a pipeline does: the collector's own cost does not grow linearly
    started = time.process_time()
    step.run(model, log)
    return {"seconds": time.process_time() - started, "changes": len(log.changes)}


def best_of(text: str, kind: str, size: int, timeout: float, times: int = 3) -> dict[str, Any]:
    """The fastest of several children, or the first error."""
    runs = [in_child(text, kind, size, timeout) for _ in range(times)]
    return next((run for run in runs if "error" in run), None) or min(runs, key=lambda run: run["seconds"])


def in_child(text: str, kind: str, size: int, timeout: float) -> dict[str, Any]:
    """:func:`time_pass` in a process of its own; an ``error`` in words if it fails."""
    command = [sys.executable, __file__, "--child", json.dumps([text, kind, size])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"over {timeout:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:100]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("passes", nargs="*", help="texts of passes; all of the catalogue if none is given")
    parser.add_argument("--kinds", nargs="*", default=["chain", "branching", "mixed"])
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one child process")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        text, kind, size = json.loads(arguments.child)
        print(json.dumps(time_pass(text, kind, size)))
        return
    texts = arguments.passes
    if not texts:
        from surgeon_passes.catalogue import pass_locations

        texts = [text for name in sorted(pass_locations()) if (text := OPTIONS.get(name, name))]
    rows = [["pass", "graph", f"s at {SIZES[0]}", f"s at {SIZES[1]}", "ratio", "changes", ""]]
    results = []
    for text in texts:
        for kind in arguments.kinds:
            small, large = (best_of(text, kind, size, arguments.timeout) for size in SIZES)
            name = text if len(text) < 40 else text.rpartition(".")[2]
            error = small.get("error") or large.get("error")
            if error:
                rows.append([name, kind, "-", "-", "-", "-", error])
            else:
                ratio = large["seconds"] / small["seconds"]
                word = "" if ratio <= LIMIT or large["seconds"] < 0.1 else "MISSED"
                rows.append([name, kind, f"{small['seconds']:.3f}", f"{large['seconds']:.3f}", f"{ratio:.1f}"])
                rows[-1] += [str(large["changes"]), word]
            results.append({"pass": text, "graph": kind, "small": small, "large": large})
            print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))
    if arguments.json:
        document = {"schema": "surgeon.bench.linear/1", "sizes": SIZES, "results": results}
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
