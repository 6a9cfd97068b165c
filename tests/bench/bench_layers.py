"""Compare models layer by layer, onnxruntime unoptimised against optimised, beside the floor and beside Polygraphy.

The floor loads a model twice and runs it twice with every tensor as an output, in plain onnxruntime, and compares
nothing. Everything gets the same model file and the same inputs, batch 1 and 128 tokens, and is timed from the start of
its process to the end, in turns, so that a machine that slows down slows all of them.
``python tests/bench/bench_layers.py FOLDER [NAME ...] --python INTERPRETER_WITH_POLYGRAPHY --json results.json``
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import beside, table
from measure_tree import Tree, best_of_trees, measure_tree

HERE = Path(__file__).parent
MODELS = ("bert_base", "vit_base", "resnet_50", "gpt2")
DIMS = ("batch=1", "sequence=128")
TOOLS = ("floor", "surgeon", "polygraphy")
FINISHED = {"floor": ("ok",), "surgeon": ("ok", "exit 1"), "polygraphy": ("ok", "exit 1")}
"""What a tool exits with when it has compared; 1 says that something differs."""

TO_FLOOR, FASTER, LEANER = 2.0, 5.0, 1 / 3


def command_of(tool: str, model: Path, stem: Path, arguments: argparse.Namespace) -> list[str]:
    """The command line of one tool; it writes its findings to standard output."""
    return {
        "floor": [arguments.ours, str(HERE / "layer_floor.py"), "floor", str(model), str(stem)],
        "surgeon": [
            beside(arguments.ours, "surgeon"), "compare", str(model), "--reference", "onnxruntime:optimize=none",
            "--target", "onnxruntime", "--layers", "--feeds", str(stem.with_suffix(".npz")), "--json",
        ],
        "polygraphy": [
            beside(arguments.python, "polygraphy"), "run", str(model), "--onnxrt", "--onnxrt", "--onnx-outputs", "mark",
            "all", "--load-inputs", str(stem.with_suffix(".polygraphy.json")),
        ],
    }[tool]  # fmt: skip


def compared(tool: str, run: Tree, log: Path) -> str:
    """What a run that finished says of itself: tensors compared and its verdict."""
    text = log.read_text(errors="replace")
    if tool == "polygraphy":
        passed = text.count("PASSED | Output: ")
        failed = text.count("FAILED | Output: ")
        return f"{passed + failed} tensors, {failed} failed" if "Accuracy Summary" in text else "no summary"
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return "no JSON"
    if tool == "floor":
        return f"{found['tensors']:.0f} tensors, {found['megabytes']:.0f} MB"
    verdicts = [layer["verdict"] for layer in found["layers"]]
    odd = sum(verdict in ("wrong", "suspect", "differ") for verdict in verdicts)
    return f"{len(verdicts)} tensors, {odd} accused, {len(found['unobserved'])} not seen"


def judge(runs: dict[str, Tree]) -> list[tuple[str, bool]]:
    """The targets, as sentences, and whether they are reached, for those tools that were run."""
    ours, floor, peer = (runs.get(tool) for tool in ("surgeon", "floor", "polygraphy"))
    if ours is None:
        return []
    if ours.status not in FINISHED["surgeon"]:
        return [(f"ours fails: {ours.status}", False)]
    found = []
    if floor and floor.ok:
        ratio = ours.seconds / floor.seconds
        found.append((f"at most {TO_FLOOR:g} x the floor: {ratio:.2f} x", ratio <= TO_FLOOR))
    if peer and peer.status in FINISHED["polygraphy"]:
        ratio = peer.seconds / ours.seconds
        share = ours.all_megabytes / peer.all_megabytes
        found.append((f"at least {FASTER:g} x faster than Polygraphy: {ratio:.1f} x", ratio >= FASTER))
        found.append((f"at most a third of its memory: {share:.2f}", share <= LEANER))
    return found


def bench(name: str, arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure all tools on one model, print its table, and return it as data."""
    layout = f"{name}_external" if arguments.layout == "external" else ""
    model = arguments.folder / layout / f"{name}.onnx"
    stem = scratch / name
    made = measure_tree(
        [arguments.ours, str(HERE / "layer_floor.py"), "inputs", str(model), str(stem), "--dims", *DIMS]
    )
    if not made.ok:
        raise SystemExit(f"no inputs for {model}: {made.output}")
    runs: dict[str, list[Tree]] = {tool: [] for tool in arguments.tools}
    words = dict.fromkeys(arguments.tools, "")
    for turn in range(arguments.repeat):
        for tool in arguments.tools:
            if turn and tool == "polygraphy" and not arguments.repeat_peer:
                continue
            log = scratch / f"{name}.{tool}.log"
            run = measure_tree(command_of(tool, model, stem, arguments), timeout=arguments.timeout, save=log)
            runs[tool].append(run)
            words[tool] = compared(tool, run, log) if run.status in FINISHED[tool] else run.output[-300:]
    best = {tool: best_of_trees(found, FINISHED[tool]) for tool, found in runs.items()}
    print(f"\n{name}: {model.stat().st_size / 1e6:.0f} MB, {made.output.strip()}")
    print(table(_lines(best, words)))
    verdicts = judge(best)
    for sentence, good in verdicts:
        print(f"  {'reached' if good else 'MISSED '}  {sentence}", flush=True)
    return {
        "model": name,
        "layout": arguments.layout,
        "runs": {tool: [dataclasses.asdict(run) | {"output": ""} for run in found] for tool, found in runs.items()},
        "words": words,
        "targets": [{"target": sentence, "reached": good} for sentence, good in verdicts],
    }


def _lines(best: dict[str, Tree], words: dict[str, str]) -> list[list[str]]:
    floor = best.get("floor")
    lines = [["tool", "seconds", "x floor", "peak MB", "without files", "processes", "status", "found"]]
    for tool, run in best.items():
        ratio = f"{run.seconds / floor.seconds:.2f}" if floor and floor.ok else "-"
        memory = [f"{run.all_megabytes:.0f}", f"{run.own_megabytes:.0f}"]
        lines.append([tool, f"{run.seconds:.1f}", ratio, *memory, str(run.processes), run.status, words[tool]])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where export_models.py put the models")
    parser.add_argument("names", nargs="*", help=f"which; all if none is given: {', '.join(MODELS)}")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has Polygraphy; default: this one")
    parser.add_argument("--ours", default=sys.executable, help="interpreter that has onnx-surgeon; default: this one")
    parser.add_argument("--tools", nargs="*", default=list(TOOLS), choices=TOOLS)
    parser.add_argument("--layout", choices=["inline", "external"], default="inline")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each tool, in turns; the fastest counts")
    parser.add_argument("--repeat-peer", action="store_true", help="repeat Polygraphy too, which takes long")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one run")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    results = []
    for name in arguments.names or MODELS:
        with tempfile.TemporaryDirectory() as scratch:
            results.append(bench(name, arguments, Path(scratch)))
        if arguments.json:
            arguments.json.write_text(json.dumps({"schema": "surgeon.bench.layers/1", "models": results}, indent=1))


if __name__ == "__main__":
    main()
