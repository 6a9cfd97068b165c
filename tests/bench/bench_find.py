"""What a trial of a search for nodes costs beyond the engines: ``python -m tests.bench.bench_find [NODES ...]``.

Prints a table with a row for each family of networks and size: milliseconds of a trial of half the model, of which in
the engines (preparing and running both parts), the rest; the same for a third from the middle and for
single nodes. With ``--census`` what a census takes instead: compilations, seconds, memory.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx

from surgeon_debug.feeds import make_feeds
from surgeon_debug.find.census import take_census
from surgeon_debug.find.lab_spec import LabSpec
from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.contract import Engine, Runner
from surgeon_debug.values import Feeds, Value
from surgeon_passes.graph import load
from tests.bench.planted.families import chain, random_dag, transformer

ENGINE = "onnxruntime:optimize=none,threads=1"
FAMILIES: dict[str, Callable[[int, int], onnx.ModelProto]] = {
    "chain": chain,
    "transformer": transformer,
    "random": random_dag,
}


class Timed:
    """A runner that knows how long it has worked.

    Args:
        runner: The one that works.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.observes = getattr(runner, "observes", False)
        self.seconds = 0.0

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Compile a model, on the clock."""
        began = time.perf_counter()
        self.runner.prepare(model_path, outputs)
        self.seconds += time.perf_counter() - began

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        """Run once, on the clock."""
        began = time.perf_counter()
        found = self.runner.run(feeds)
        self.seconds += time.perf_counter() - began
        return found


def timed(isolated: bool) -> tuple[Engine, Timed]:
    """An engine of its own, and what measures it."""
    runner = Timed(make_engine(ENGINE, isolated=isolated).runner)
    return Engine(ENGINE, runner), runner


def measure(model: onnx.ModelProto, folder: Path, *, isolated: bool) -> dict[str, tuple[float, float]]:
    """Milliseconds of trials, and of the engines in them: medians."""
    path = folder / "model.onnx"
    onnx.save(model, str(path))
    (reference, own), (target, theirs) = timed(isolated), timed(isolated)
    spec = LabSpec(path, [make_feeds(load(path))], reference="-", target="-", engines=(reference, target))
    lab, count = spec.make(), len(spec.ground().elements)
    lab.evaluate(frozenset(range(count // 3)), 0)  # computes the reference's values once for all
    questions = {
        "prefix": [frozenset(range(count // 2 + i)) for i in range(5)],
        "middle": [frozenset(range(count // 3, count // 2 + i)) for i in range(5)],
        "single": [frozenset([count // 2 + i]) for i in range(5)],
    }
    found = {}
    for name, sets in questions.items():
        totals, inside = [], []
        for elements in sets:
            before = own.seconds + theirs.seconds
            began = time.perf_counter()
            record = lab.evaluate(elements, 0)
            totals.append(time.perf_counter() - began)
            inside.append(own.seconds + theirs.seconds - before)
            assert record.signature is None and not record.unresolved, record
        rest = [total - spent for total, spent in zip(totals, inside, strict=True)]
        found[name] = (statistics.median(totals) * 1e3, statistics.median(rest) * 1e3)
    spec.close()
    return found


def census(model: onnx.ModelProto, folder: Path) -> str:
    """What the census of a model takes, in words."""
    path = folder / "census.onnx"
    onnx.save(model, str(path))
    (reference, own), (target, theirs) = timed(False), timed(False)
    spec = LabSpec(path, [make_feeds(load(path))], reference="-", target="-", engines=(reference, target))
    ground = spec.ground()
    began = time.perf_counter()
    found = take_census(ground, (reference, target))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    spec.close()
    words = f"{found.judged:,} tensors judged, {len(found.accused)} accused, {found.builds} compilations"
    return f"{words}, {seconds:.1f} s, of which engines {own.seconds + theirs.seconds:.1f} s; peak {peak:,.0f} MB"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--isolated", action="store_true", help="engines in processes of their own")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--census", action="store_true", help="only the census")
    given = parser.parse_args()
    write = sys.stdout.write
    with tempfile.TemporaryDirectory() as name:
        for nodes in given.nodes:
            for family in given.family or FAMILIES:
                model = FAMILIES[family](0, nodes)
                if not given.census:
                    for way, (total, rest) in measure(model, Path(name), isolated=given.isolated).items():
                        row = f"{family:12} {len(model.graph.node):6} nodes  {way:12} {total:8.1f} ms a trial"
                        write(f"{row}, {total - rest:8.1f} in engines, {rest:7.1f} beyond\n")
                if given.census:
                    write(f"{family:12} {len(model.graph.node):6} nodes  census       {census(model, Path(name))}\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
