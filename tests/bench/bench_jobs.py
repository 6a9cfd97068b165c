"""How much sooner two jobs find a culprit than one, where every trial takes the same time.

    python -m tests.bench.bench_jobs [--seconds 1]

A bisection in three parts needs log2 over log3 of the rounds of one in two: 0.63 of the time.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from surgeon_debug.find.nodes import find_nodes
from tests.bench.planted_layers.random_graphs import random_dag

RUNNER = Path(__file__).parents[1] / "debug" / "ending_runner.py"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="what a trial takes")
    seconds = parser.parse_args().seconds
    model = random_dag(3, 120)(seed=1)
    names = [node.name for node in model.graph.node]
    took = {}
    for jobs in (1, 2):
        for share in (0.2, 0.5, 0.8):
            culprit = names[int(len(names) * share)]
            target = f"{RUNNER}:Ending:at={culprit},how=refuse,seconds={seconds}"
            began = time.perf_counter()
            found = find_nodes(model, target=target, jobs=jobs)
            took[jobs, share] = time.perf_counter() - began
            assert [one.nodes for one in found.culprits] == [(culprit,)]
            sys.stdout.write(f"{jobs} jobs, culprit at {share:.0%} of {len(names)} nodes: {took[jobs, share]:.1f} s\n")
    totals = {jobs: sum(s for (j, _), s in took.items() if j == jobs) for jobs in (1, 2)}
    sys.stdout.write(f"two against one: {totals[2] / totals[1]:.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
