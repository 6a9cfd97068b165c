"""How long a command line takes to say what it can do: medians of ``surgeon --help`` and ``polygraphy --help``.

``python tests/bench/bench_help.py --python INTERPRETER_WITH_PEERS``
"""

from __future__ import annotations

import argparse
import statistics
import sys

from measure import beside, measure, table


def medians(commands: dict[str, list[str]], times: int) -> dict[str, tuple[float, float]]:
    """Median seconds and megabytes of each command; the commands take turns, so that load hits them alike."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(times + 1):
        for name, command in commands.items():
            run = measure(command)
            if not run.ok:
                sys.exit(f"{' '.join(command)}: {run.status}\n{run.output}")
            if turn:  # the first one fills caches
                runs[name].append((run.seconds, run.megabytes))
    return {
        name: (statistics.median(s for s, _ in found), statistics.median(m for _, m in found))
        for name, found in runs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers; default: this one")
    parser.add_argument("--ours", default=sys.executable, help="interpreter that has onnx-surgeon; default: this one")
    parser.add_argument("--times", type=int, default=10)
    arguments = parser.parse_args()
    commands = {
        "surgeon --help": [beside(arguments.ours, "surgeon"), "--help"],
        "surgeon rewrite --help": [beside(arguments.ours, "surgeon"), "rewrite", "--help"],
        "polygraphy --help": [beside(arguments.python, "polygraphy"), "--help"],
        "python -c pass": [arguments.ours, "-c", "pass"],
    }
    found = medians(commands, arguments.times)
    rows = [["command", "median ms", "peak MB"]]
    rows += [[name, f"{1000 * seconds:.0f}", f"{memory:.0f}"] for name, (seconds, memory) in found.items()]
    print(table(rows))
    ratio = found["surgeon --help"][0] / found["polygraphy --help"][0]
    print(f"  {'reached' if ratio < 0.5 else 'MISSED '}  below half the time of polygraphy --help: {ratio:.2f} x")


if __name__ == "__main__":
    main()
