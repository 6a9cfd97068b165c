"""Compare what is large layer by layer: 4.4 GB of weights under a cap of 2 GB, long sequences, 10,000 nodes.

- ``weights``: the decoder of 1.1 billion parameters, once without a cap and with eight times the room for tensors (all
  it could use takes more than 14 GB), and once under the cap, which :mod:`measure_tree` enforces over all processes
  together; the results must be the same and the time at most twice. The target has a fault in one layer.
- ``activations``: the same model on so many tokens that its tensors exceed 8 GB, under the same cap.
- ``peer``: Polygraphy on the same model, under a cap that keeps the machine alive.
- ``nodes``: three kinds of graphs with 1,000 and 10,000 nodes; time must grow by the same factor at most.

``python tests/bench/bench_layers_large.py FOLDER [PART ...] --python INTERPRETER_WITH_POLYGRAPHY --json results.json``
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import beside, table
from measure_tree import Tree, best_of_trees, measure_tree

HERE = Path(__file__).parent
CAP = 2_000_000_000
PEER_CAP = 14_000_000_000
SHORT, LONG = 128, 640
SIZES = (1_000, 10_000)
GRAPHS = ("chain", "branching", "mixed")
CULPRIT = "/layer.17/MatMul_output_0"
FINISHED = ("ok", "exit 1")
TIMES_UNBOUNDED = 2.0


@dataclasses.dataclass(frozen=True)
class Named:
    """A measured run and what it printed."""

    name: str
    run: Tree
    found: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it compared, with whatever verdict."""
        return self.run.status in FINISHED and bool(self.found)


def compare(
    name: str,
    model: Path,
    feeds: Path | None,
    options: list[str],
    cap: int | None,
    ours: str,
    target: str = "onnxruntime",
) -> Named:
    """Run ``surgeon compare --layers`` on a model, unoptimised against optimised or another target."""
    command = [beside(ours, "surgeon"), "compare", str(model), "--target", target, "--layers", "--json"]
    command += ["--feeds", str(feeds)] if feeds else []
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.json"
        run = measure_tree([*command, *options], cap=cap, timeout=3600, save=out)
        text = out.read_text()
    found = json.loads(text) if run.status in FINISHED and text.startswith("{") else {}
    return Named(name, run, found)


def make_inputs(model: Path, stem: Path, tokens: int, ours: str) -> None:
    """Write inputs of one sequence of ``tokens`` for the decoder."""
    dims = ["batch=1", f"sequence={tokens}"]
    made = measure_tree([ours, str(HERE / "layer_floor.py"), "inputs", str(model), str(stem), "--dims", *dims])
    if not made.ok:
        raise SystemExit(f"no inputs for {model}: {made.output}")


def same(one: dict[str, Any], other: dict[str, Any]) -> tuple[int, int, int]:
    """Layers that both results have; those that are equal in every number; those that are equal in the verdict."""
    theirs = {layer["tensor"]: layer for layer in other["layers"]}
    pairs = [(layer, theirs[layer["tensor"]]) for layer in one["layers"] if layer["tensor"] in theirs]
    equal = sum(a == b for a, b in pairs)
    agreeing = sum(a["verdict"] == b["verdict"] for a, b in pairs)
    return len(pairs), equal, agreeing


def wrong_engine(folder: Path) -> str:
    """The text of onnxruntime with one layer that is off by one in a thousand, so that there is something to find."""
    fault = {"tensor": CULPRIT, "kind": "gain", "dtype": 1, "shape": [], "size": 1e-3}
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"base": "onnxruntime", "faults": [fault]}))
    return f"{HERE / 'planted_layers' / 'faults.py'}:FaultyEngine:plan={plan}"


def _accused(run: Named) -> list[str]:
    return [layer["tensor"] for layer in run.found["layers"] if layer["verdict"] in ("wrong", "suspect")]


def weights(arguments: argparse.Namespace, scratch: Path) -> tuple[list[Named], list[tuple[str, bool]]]:
    """The decoder, unbounded and under the cap."""
    model = arguments.folder / "decoder_4400MB" / "model.onnx"
    stem = scratch / "short"
    make_inputs(model, stem, SHORT, arguments.ours)
    feeds = stem.with_suffix(".npz")
    target = wrong_engine(scratch)
    room = ["--memory", arguments.roomy]
    free = compare(f"no cap, --memory {arguments.roomy}", model, feeds, room, None, arguments.ours, target)
    capped = compare("2 GB cap", model, feeds, arguments.options, CAP, arguments.ours, target)
    if not (free.finished and capped.finished):
        return [free, capped], [("both runs finish", False)]
    ratio = capped.run.seconds / free.run.seconds
    total, equal, agreeing = same(free.found, capped.found)
    both_name_it = _accused(free) == _accused(capped) == [CULPRIT]
    whole = total == len(free.found["layers"]) == len(capped.found["layers"]) > 0
    return [free, capped], [
        (f"under the cap: {capped.run.own_megabytes:.0f} MB", capped.run.own_megabytes <= CAP / 1e6),
        (f"at most {TIMES_UNBOUNDED:g} x the unbounded time: {ratio:.2f} x", ratio <= TIMES_UNBOUNDED),
        (f"the same verdicts: {agreeing} of {total}", whole and agreeing == total),
        (f"the same numbers: {equal} of {total}", whole and equal == total),
        (f"both name the layer with the fault: {', '.join(_accused(capped))}", both_name_it),
    ]


def activations(arguments: argparse.Namespace, scratch: Path) -> tuple[list[Named], list[tuple[str, bool]]]:
    """The decoder on a long sequence, under the cap."""
    model = arguments.folder / "decoder_4400MB" / "model.onnx"
    stem = scratch / "long"
    make_inputs(model, stem, LONG, arguments.ours)
    run = compare(f"{LONG} tokens, 2 GB cap", model, stem.with_suffix(".npz"), arguments.options, CAP, arguments.ours)
    if not run.finished:
        return [run], [("it finishes under the cap", False)]
    elements = sum(layer["total"]["elements"] for layer in run.found["layers"] if layer.get("total"))
    gigabytes = elements * 4 / 1e9
    return [run], [
        (f"activations of more than 8 GB: {gigabytes:.1f} GB", gigabytes > 8),
        (f"under the cap: {run.run.own_megabytes:.0f} MB", run.run.own_megabytes <= CAP / 1e6),
    ]


def peer(arguments: argparse.Namespace, scratch: Path) -> tuple[list[Named], list[tuple[str, bool]]]:
    """Polygraphy on the decoder; no target, only what becomes of it."""
    model = arguments.folder / "decoder_4400MB" / "model.onnx"
    stem = scratch / "peer"
    make_inputs(model, stem, SHORT, arguments.ours)
    command = [beside(arguments.python, "polygraphy"), "run", str(model), "--onnxrt", "--onnxrt", "--onnx-outputs"]
    command += ["mark", "all", "--load-inputs", str(stem.with_suffix(".polygraphy.json"))]
    log = scratch / "peer.log"
    run = measure_tree(command, cap=PEER_CAP, timeout=3600, save=log)
    lines = [line for line in (log.read_text(errors="replace") + run.output).splitlines() if line.strip()]
    words = {"says": " | ".join(line.strip()[:200] for line in lines[-3:])}
    return [Named("polygraphy, 14 GB cap", dataclasses.replace(run, output=""), words)], []


def nodes(arguments: argparse.Namespace, scratch: Path) -> tuple[list[Named], list[tuple[str, bool]]]:
    """Graphs of 1,000 and of 10,000 nodes."""
    from build_large import build_graph
    from onnx import save_model

    runs, verdicts = [], []
    for kind in GRAPHS:
        best = []
        for size in SIZES:
            path = scratch / f"{kind}_{size}.onnx"
            save_model(build_graph(kind, size), path)
            tries = [
                compare(f"{kind}, {size:,} nodes", path, None, arguments.options, None, arguments.ours)
                for _ in range(arguments.repeat)
            ]
            best.append(dataclasses.replace(tries[-1], run=best_of_trees([item.run for item in tries], FINISHED)))
        runs += best
        if all(item.finished for item in best):
            ratio = best[1].run.seconds / best[0].run.seconds
            factor = SIZES[1] / SIZES[0]
            verdicts.append((f"{kind}: {factor:g} x the nodes take {ratio:.1f} x the time", ratio <= factor))
        else:
            verdicts.append((f"{kind}: both finish", False))
    return runs, verdicts


PARTS = {"weights": weights, "activations": activations, "peer": peer, "nodes": nodes}


def _lines(runs: list[Named]) -> Iterator[list[str]]:
    yield ["run", "seconds", "own MB", "all MB", "processes", "status", "layers"]
    for item in runs:
        run = item.run
        layers = str(len(item.found["layers"])) if "layers" in item.found else "-"
        numbers = [f"{run.seconds:.1f}", f"{run.own_megabytes:.0f}", f"{run.all_megabytes:.0f}", str(run.processes)]
        yield [item.name, *numbers, run.status, layers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where build_large.py put the models")
    parser.add_argument("parts", nargs="*", help=f"which; all if none is given: {', '.join(PARTS)}")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has Polygraphy; default: this one")
    parser.add_argument("--ours", default=sys.executable, help="interpreter that has onnx-surgeon; default: this one")
    parser.add_argument("--roomy", default="2GB", help="memory for tensors in the run without a cap")
    parser.add_argument("--options", nargs="*", default=[], help="more options for surgeon compare")
    parser.add_argument("--repeat", type=int, default=2, help="runs of each small graph; the fastest counts")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    results = {}
    for part in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory() as scratch:
            runs, verdicts = PARTS[part](arguments, Path(scratch))
        print(f"\n{part}")
        print(table(list(_lines(runs))))
        for item in runs:
            if not item.finished or "says" in item.found:
                print(f"  {item.name}: {item.found.get('says') or item.run.output[-400:]}")
        for sentence, good in verdicts:
            print(f"  {'reached' if good else 'MISSED '}  {sentence}", flush=True)
        results[part] = {
            "runs": [{"name": item.name, **dataclasses.asdict(item.run), "output": ""} for item in runs],
            "words": {item.name: item.found["says"] for item in runs if "says" in item.found},
            "targets": [{"target": sentence, "reached": good} for sentence, good in verdicts],
        }
        if arguments.json:
            arguments.json.write_text(json.dumps({"schema": "surgeon.bench.layers-large/1", **results}, indent=1))


if __name__ == "__main__":
    main()
