"""The story of ``surgeon demo``, told with the real parts and no canned line."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
from rich.console import Console
from rich.markup import escape

from surgeon import demo_engine, rewriting
from surgeon.console import human_bytes
from surgeon.demo_model import build_demo_model
from surgeon.report.compare_report import print_comparison
from surgeon.report.find_report import print_finding
from surgeon_debug.comparison import Comparison
from surgeon_debug.find.nodes import find_nodes
from surgeon_debug.layers import compare_models
from surgeon_passes.save import Weights

_REFERENCE = "onnxruntime:optimize=none"
# onnxruntime has few float16 kernels for CPUs and computes chains of the others in float32, which hides an overflow.
# onnx's evaluator computes every node in the type the model states, as an accelerator would.
_TARGET = "reference"


def tell(folder: Path, console: Console, *, seed: int) -> int:
    """Run the story in ``folder``.

    Args:
        folder: Where the models go.
        console: Where it is told.
        seed: Of the weights.

    Returns:
        0 if it ended well, 3 if it did not.
    """
    started = time.perf_counter()
    model, small, half, fixed = (folder / f"{name}.onnx" for name in ("model", "small", "half", "fixed"))
    proto = build_demo_model(seed)
    onnx.save(proto, str(model))
    size = human_bytes(model.stat().st_size)
    console.print(f"[bold]1. A small transformer, as an exporter writes it:[/] {len(proto.graph.node)} nodes, {size}.")
    if not _simplify(console, model, small):
        return 3
    console.print("\n[bold]3. To float16:[/]")
    _convert(console, small, half, ())
    broken = _compare(console, small, half)
    first = broken.first
    if broken.verdict == "agree" or first is None:
        console.print("float16 holds here: this seed has no overflow to find. Try another --seed.")
        return 3
    console.print(f"\n[bold]5. The error starts at {escape(first.node)}.[/] Keep that layer in float32:")
    for pattern in _wider(first.node):
        _convert(console, small, fixed, (pattern,))
        if compare_models(small, fixed, reference=_REFERENCE, target=_TARGET).verdict == "agree":
            break
        console.print("   still wrong: what this layer computes does not fit into float16 either. Keep more:")
    repaired = _compare(console, small, fixed)
    if repaired.verdict != "agree":
        console.print("the outputs still differ")
        return 3
    console.print("\n[bold]The outputs agree again.[/]")
    if not _find(console, small):
        return 3
    seconds = time.perf_counter() - started
    console.print(f"\n{seconds:.1f} s; 'surgeon demo --keep FOLDER' leaves the models and the engine.")
    return 0


def _say(console: Console, line: str) -> None:
    console.print(f"   [dim]$[/] [cyan]{escape(line)}[/]")


def _simplify(console: Console, model: Path, small: Path) -> bool:
    console.print("\n[bold]2. Simplify it, and prove that nothing changed:[/]")
    _say(console, f"surgeon rewrite {model.name} -r simplify --verify -o {small.name}")
    order = rewriting.Order(model, rewriting.recipe_of(["simplify"]))
    report = rewriting.perform(order)
    verified = rewriting.verify(order, report, samples=2, dims={})
    rewriting.write(report, rewriting.Target(small, Weights.AUTO, None))
    before, after = report.steps[0].nodes_before, report.steps[-1].nodes_after
    console.print(f"   {before} -> {after} nodes in {len(report.changes)} changes")
    for line in verified.sentences():
        console.print(f"   {escape(line)}")
    return not verified.altered


def _convert(console: Console, small: Path, target: Path, keep: tuple[str, ...]) -> None:
    spec = "convert-precision:to=float16" + (f",keep={';'.join(keep)}" if keep else "")
    _say(console, f"surgeon rewrite {small.name} -p '{spec}' -o {target.name}")
    report = rewriting.perform(rewriting.Order(small, rewriting.recipe_of([spec])))
    rewriting.write(report, rewriting.Target(target, Weights.AUTO, None))
    console.print(f"   {len(report.changes)} nodes now compute in float16; {human_bytes(target.stat().st_size)}")


def _compare(console: Console, one: Path, two: Path) -> Comparison:
    if two.stem == "half":
        console.print("\n[bold]4. Compare the two, layer by layer:[/]")
    _say(console, f"surgeon compare {one.name} {two.name} --target {_TARGET} --layers")
    done = compare_models(one, two, reference=_REFERENCE, target=_TARGET, layers=True)
    if done.verdict == "differ":
        print_comparison(console, done)
    else:
        for result in done.outputs:
            console.print(
                f"   {result.verdict.value}: output {escape(result.tensor)}, {escape(result.judgement.reason)}"
            )
    return done


def _find(console: Console, small: Path) -> bool:
    """Hand the model to an engine with a bug; whether the one node that it hits is named."""
    console.print("\n[bold]6. Now an engine with a bug,[/] which shows in one of the nodes. Who is it?")
    engine = small.with_name("tiled.py")
    shutil.copyfile(demo_engine.__file__, engine)
    _say(console, f"surgeon find nodes {small.name} --target {engine.name}:Tiled")
    found = find_nodes(small, target=f"{engine}:Tiled", reference=_REFERENCE)
    print_finding(console, dataclasses.replace(found, model=small.name, target=f"{engine.name}:Tiled"))
    hit = [node for node, columns in _products(small) if columns % demo_engine.TILE]
    return [list(culprit.nodes) for culprit in found.culprits] == [hit]


def _products(small: Path) -> Iterator[tuple[str, int]]:
    """The products with constant weights, and how many columns these have."""
    graph = onnx.load(str(small)).graph
    columns = {weight.name: weight.dims[-1] for weight in graph.initializer if weight.dims}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in columns:
            yield node.name, columns[node.input[1]]


def _wider(node: str) -> Iterator[str]:
    """Patterns for the module a node is in, then for the module around it, and so on."""
    parts = node.split("/")[:-1]
    while len(parts) > 1:
        yield "/".join(parts) + "/*"
        parts = parts[:-1]
