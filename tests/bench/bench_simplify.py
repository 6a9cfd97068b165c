"""Simplify exported models with every tool, side by side in one run: nodes left, seconds, peak memory, same outputs.

Each tool runs in a process of its own, one after the other. Nodes are counted in all graphs, Constant nodes included.
``python tests/bench/bench_simplify.py FOLDER [NAME ...] --python INTERPRETER_WITH_PEERS --json results.json``
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import Measured, beside, best_of, measure, table

HERE = Path(__file__).parent
MODELS = ("mobilenet_v2", "segformer_b0", "swin_tiny", "bert_base", "gpt2")
OURS = "surgeon"
PEERS = ("polygraphy", "onnxsim", "onnxslim", "onnxscript")
YARDSTICK = "onnxruntime"

_ONNXSCRIPT = """
import sys, onnx_ir as ir, onnxscript.optimizer
model = ir.load(sys.argv[1])
onnxscript.optimizer.optimize(model)
ir.save(model, sys.argv[2])
"""
_ONNXRUNTIME = """
import sys, onnxruntime as ort
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.optimized_model_filepath = sys.argv[2]
options.log_severity_level = 4
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""


def command_of(tool: str, source: Path, target: Path, peers: str, ours: str) -> list[str]:
    """The command line by which a tool simplifies ``source`` into ``target``."""
    paths = [str(source), str(target)]
    return {
        "surgeon": [beside(ours, "surgeon"), "rewrite", paths[0], "-r", "simplify", "-o", paths[1]],
        "polygraphy": [
            beside(peers, "polygraphy"), "surgeon", "sanitize", paths[0], "--fold-constants", "-o", paths[1],
        ],
        "onnxsim": [beside(peers, "onnxsim"), *paths],
        "onnxslim": [beside(peers, "onnxslim"), *paths],
        "onnxscript": [peers, "-c", _ONNXSCRIPT, *paths],
        "onnxruntime": [peers, "-c", _ONNXRUNTIME, *paths],
    }[tool]  # fmt: skip


def examine(python: str, model: Path, *arguments: str) -> dict[str, Any]:
    """What :mod:`examine_model` says about a model."""
    done = measure([python, str(HERE / "examine_model.py"), str(model), *arguments])
    lines = [line for line in done.output.splitlines() if line.startswith("{")]
    if not done.ok or not lines:
        return {"nodes": 0, "constants": 0, "difference": f"cannot be examined: {done.status}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


@dataclasses.dataclass
class Row:
    """What one tool made of one model."""

    tool: str
    run: Measured
    nodes: int
    constants: int
    difference: str


def bench(source: Path, tools: list[str], arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run every tool on one model, print its table, and return it as data."""
    reference = scratch / "reference.npz"
    before = examine(arguments.ours, source, *(["--outputs", str(reference)] if arguments.check else []))
    rows = []
    for tool in tools:
        folder = scratch / tool
        folder.mkdir()
        target = folder / "out.onnx"
        command = command_of(tool, source, target, arguments.python, arguments.ours)
        run = best_of(command, arguments.repeat, timeout=arguments.timeout)
        after = {"nodes": 0, "constants": 0, "difference": run.status}
        if run.ok and target.exists():
            check = ["--against", str(reference)] if arguments.check else []
            after = examine(arguments.ours, target, *check)
        rows.append(Row(tool, run, after["nodes"], after["constants"], after.get("difference", "not run")))
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    size = sum(f.stat().st_size for f in source.parent.glob(f"{source.stem}.*")) / 1e6
    print(f"\n{source.parent.name}/{source.name}: {before['nodes']} nodes, {size:.0f} MB")
    print(table(_lines(rows)))
    external = source.parent.name.endswith("_external")
    budget = 300 + before.get("largest", 0) / 1e6 if external else None
    verdicts = judge(rows, size, budget)
    for sentence, good in verdicts:
        print(f"  {'reached' if good else 'MISSED '}  {sentence}")
    return {
        "model": str(source),
        "nodes": before["nodes"],
        "megabytes": size,
        "tools": [{**dataclasses.asdict(row), "run": dataclasses.asdict(row.run)} for row in rows],
        "targets": [{"target": sentence, "reached": good} for sentence, good in verdicts],
    }


def _good(rows: list[Row], names: tuple[str, ...]) -> list[Row]:
    return [row for row in rows if row.tool in names and row.run.ok and row.nodes]


def _lines(rows: list[Row]) -> list[list[str]]:
    peers = _good(rows, PEERS)
    nodes = min((r.nodes for r in peers), default=0)
    seconds = min((r.run.seconds for r in peers), default=0.0)
    memory = min((r.run.megabytes for r in peers), default=0.0)
    lines = [["tool", "nodes", "Constant", "x best", "seconds", "x best", "peak MB", "x best", "outputs"]]
    for row in rows:
        if not row.run.ok:
            lines.append([row.tool, "-", "-", "-", f"{row.run.seconds:.1f}", "-", f"{row.run.megabytes:.0f}", "-"])
            lines[-1].append(row.run.status)
            continue
        ratios = [
            f"{value / best:.2f}" if best else "-"
            for value, best in ((row.nodes, nodes), (row.run.seconds, seconds), (row.run.megabytes, memory))
        ]
        cells = [row.tool, str(row.nodes), str(row.constants), ratios[0], f"{row.run.seconds:.1f}", ratios[1]]
        lines.append([*cells, f"{row.run.megabytes:.0f}", ratios[2], row.difference])
    return lines


def judge(rows: list[Row], size: float, budget: float | None) -> list[tuple[str, bool]]:
    """The targets and whether ours reached them, over those peers that succeeded.

    Args:
        rows: What the tools made.
        size: The model's size in megabytes.
        budget: Most megabytes that ours may use; None if there is no fixed bound.
    """
    ours = next((row for row in rows if row.tool == OURS), None)
    peers = _good(rows, PEERS)
    if ours is None or not peers:
        return []
    if not ours.run.ok:
        return [(f"ours fails: {ours.run.status}", False)]
    fewest = min(peers, key=lambda row: row.nodes)
    fastest = min(peers, key=lambda row: row.run.seconds)
    found = [
        (f"no more nodes than {fewest.tool}: {ours.nodes} / {fewest.nodes}", ours.nodes <= fewest.nodes),
        (
            f"no slower than {fastest.tool}: {ours.run.seconds:.1f} / {fastest.run.seconds:.1f} s",
            ours.run.seconds <= fastest.run.seconds,
        ),
    ]
    yardstick = _good(rows, (YARDSTICK,))
    if yardstick:
        seconds = yardstick[0].run.seconds
        found.append((f"aim: onnxruntime's {seconds:.1f} s", ours.run.seconds <= seconds))
    if budget is not None:
        memory = ours.run.megabytes
        found.append((f"300 MB plus the largest tensor: {memory:.0f} / {budget:.0f} MB", memory <= budget))
    lean = _good(rows, PEERS[:3])
    if size > 100 and lean:
        least = min(row.run.megabytes for row in lean)
        found.append(
            (
                f"half the memory of the leanest: {ours.run.megabytes:.0f} / {least:.0f} MB",
                ours.run.megabytes <= least / 2,
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where export_models.py put the models")
    parser.add_argument("names", nargs="*", help=f"which; all if none is given: {', '.join(MODELS)}")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers; default: this one")
    parser.add_argument("--ours", default=sys.executable, help="interpreter that has onnx-surgeon; default: this one")
    parser.add_argument("--tools", nargs="*", default=[OURS, *PEERS, YARDSTICK])
    parser.add_argument("--layout", choices=["inline", "external", "both"], default="inline")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each tool; the fastest counts")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one run")
    parser.add_argument("--no-check", dest="check", action="store_false", help="do not compare outputs")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    layouts = ["inline", "external"] if arguments.layout == "both" else [arguments.layout]
    results = []
    for name in arguments.names or MODELS:
        for layout in layouts:
            folder = arguments.folder if layout == "inline" else arguments.folder / f"{name}_external"
            with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
                results.append(bench(folder / f"{name}.onnx", arguments.tools, arguments, Path(scratch)))
            if arguments.json:
                arguments.json.write_text(
                    json.dumps({"schema": "surgeon.bench.simplify/1", "models": results}, indent=1)
                )


if __name__ == "__main__":
    main()
