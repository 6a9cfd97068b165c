"""Score a tool on planted faults.

``python -m tests.bench.planted.score --cases 320 --seed 7 --tool ours --jobs 2 --json FILE``, from the root of the
checkout.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from tests.bench.planted.cases import HEALTHY, KINDS, REWRITE, Spec, draw_specs, spec_of
from tests.bench.planted.judge import Score, ratio, score_folder, score_spec
from tests.bench.planted.models import sizes
from tests.bench.planted.tools import TOOLS

SCHEMA = "surgeon.bench.planted/1"
ALL, EACH, FALSE, BOTH, BUILDS = 0.97, 0.90, 0.005, 0.95, 2
"""What is to be reached: exact in all and in each kind, false accusations, both of two found, builds."""
ISOLABLE = ("wrong kernel", "half precision", "off by one", "tactic", "precision set", "body", "data dependent")
"""Kinds whose culprit fails by itself, so that few builds are enough."""


def run(specs: Sequence[Spec | Path], tool: str, jobs: int, timeout: int) -> list[Score]:
    """All scores in the order of the cases; what went wrong goes to standard error.

    Args:
        specs: Cases that are planted on the way, or folders of cases.
        tool: One of :data:`TOOLS`.
        jobs: Processes.
        timeout: Seconds for one case.
    """
    scores = []
    started = time.perf_counter()
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        futures = [
            pool.submit(score_folder, spec, tool, timeout)
            if isinstance(spec, Path)
            else pool.submit(score_spec, spec, tool, timeout)
            for spec in specs
        ]
        for spec, future in zip(specs, futures, strict=True):
            try:
                score = future.result()
            except concurrent.futures.process.BrokenProcessPool as error:
                raise SystemExit(f"a worker died at or after {spec}: {error}") from error
            scores.append(score)
            if not score.exact or score.false:
                print(_story(score), file=sys.stderr, flush=True)
    print(f"{len(scores)} cases in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return scores


def _story(score: Score) -> str:
    """A case that did not go as it should."""
    what = "error" if score.error else "undecided" if score.undecided else "near" if score.near else "wrong"
    truth = "nobody" if not score.truth else "; ".join(", ".join(group) for group in score.truth)
    named = "nobody" if not score.named else "; ".join(", ".join(group) for group in score.named)
    lines = [f"{score.spec.name} ({score.cause}): {what}", f"  is    {truth[:300]}", f"  named {named[:300]}"]
    said = score.error or score.words
    return "\n".join([*lines, *([f"  {said[:300]}"] if said else [])])


def table(title: str, groups: Iterable[tuple[str, list[Score]]]) -> str:
    """One row a group."""
    heading = [
        "", "cases", "exact", "near", "recall", "false", "undecided", "errors", "builds", "p95", "trials", "p95",
        "/bound", "p95", "s", "virtual min",
    ]  # fmt: skip
    rows = [heading, *(_row(name, found) for name, found in groups if found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heading))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([title, *lines])


def _row(name: str, found: list[Score]) -> list[str]:
    there = sum(s.culprits for s in found)
    ratios = [ratio(s) for s in found if not math.isnan(ratio(s))]
    return [
        name,
        str(len(found)),
        _share(sum(s.exact for s in found), len(found)),
        _share(sum(s.near for s in found), len(found)),
        _share(sum(s.found for s in found), there),
        _share(sum(s.false > 0 for s in found), len(found)),
        _share(sum(s.undecided for s in found), len(found)),
        str(sum(bool(s.error) for s in found)),
        *_mean_and_p95([s.builds for s in found]),
        *_mean_and_p95([s.trials for s in found]),
        *_mean_and_p95(ratios, 2),
        f"{np.mean([s.seconds for s in found]):.1f}",
        f"{np.mean([s.virtual for s in found]) / 60:.1f}",
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _mean_and_p95(values: Sequence[float], digits: int = 1) -> list[str]:
    if not values:
        return ["-", "-"]
    return [f"{np.mean(values):.{digits}f}", f"{np.percentile(values, 95):.{digits}f}"]


def by(
    key: Callable[[Score], str], scores: Sequence[Score], order: Sequence[str] = ()
) -> list[tuple[str, list[Score]]]:
    """Scores in groups."""
    names = [*order, *sorted({key(s) for s in scores} - set(order))]
    return [(name, [s for s in scores if key(s) == name]) for name in names]


def _network(score: Score) -> str:
    """The family or architecture, whatever its size and precision."""
    return score.spec.network.split(" ")[0].split("@")[0]


def report(scores: Sequence[Score]) -> tuple[str, list[tuple[str, bool]]]:
    """All tables as text, and the targets with whether they are reached."""
    plain, hard = [s for s in scores if not s.hard], [s for s in scores if s.hard]
    text = "\n\n".join(
        [
            table("by kind", by(lambda s: s.spec.kind, plain, KINDS)),
            table("by size", by(lambda s: s.spec.size, plain, sizes())),
            table("by network", by(_network, plain)),
            table(
                "all",
                [
                    ("with a fault", [s for s in plain if s.spec.kind != HEALTHY]),
                    ("healthy", [s for s in plain if s.spec.kind == HEALTHY]),
                    ("together", plain),
                    ("at 3 x noise, where abstaining is right too", hard),
                ],
            ),
        ]
    )
    return text, _targets(plain)


def _targets(scores: Sequence[Score]) -> list[tuple[str, bool]]:
    def share(found: Sequence[Score]) -> float:
        return sum(s.exact for s in found) / max(1, len(found))

    faulty, healthy = ([s for s in scores if (s.spec.kind == HEALTHY) is flag] for flag in (False, True))
    kinds = {name: share(found) for name, found in by(lambda s: s.spec.kind, scores) if found}
    worst = min(kinds, key=lambda name: kinds[name], default="")
    false = sum(s.false > 0 for s in healthy) / max(1, len(healthy))
    two = [s for s in faulty if s.spec.kind == "two faults"]
    recall = sum(s.found for s in two) / max(1, sum(s.culprits for s in two))
    few = [s for s in faulty if s.spec.kind in ISOLABLE and not s.latent]
    builds = max((s.builds if s.naming is None else s.naming for s in few), default=0)
    return [
        (f"exact in at least {ALL:.0%} of all cases with a fault: {share(faulty):.1%}", share(faulty) >= ALL),
        (f"and in at least {EACH:.0%} of each kind: {kinds.get(worst, 0):.1%} of {worst}", kinds.get(worst, 0) >= EACH),
        (f"at most {FALSE:.1%} of healthy cases with somebody accused: {false:.1%}", false <= FALSE),
        (f"both of two faults in at least {BOTH:.0%}: {recall:.1%}", recall >= BOTH),
        (
            f"builds that name isolable faults and prove them, at most: {builds}",
            0 < builds <= BUILDS and not any(s.error for s in few),
        ),
    ]


def _asked(arguments: argparse.Namespace) -> list[Spec | Path]:
    """The cases that are to be run."""
    if arguments.folder is None:
        specs = draw_specs(arguments.cases, arguments.seed, arguments.kinds, arguments.sizes)
        found: list[tuple[Spec, Spec | Path]] = [(spec, spec) for spec in specs]
    else:
        paths = sorted(path.parent for path in arguments.folder.glob("*/truth.json"))
        found = [(spec_of(path), path) for path in paths]
        kinds, there = arguments.kinds or KINDS, arguments.sizes or sizes()
        found = [(spec, path) for spec, path in found if spec.kind in kinds and spec.size in there]
    if arguments.tool != "ours":  # the others name nodes
        found = [(spec, one) for spec, one in found if spec.kind != REWRITE]
    return [one for spec, one in found if arguments.only is None or spec.number in arguments.only]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=320)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="cases that were made before, instead of --cases and --seed")
    parser.add_argument("--tool", choices=list(TOOLS), default="ours")
    parser.add_argument("--kinds", nargs="*", choices=KINDS)
    parser.add_argument("--sizes", nargs="*", choices=list(sizes()))
    parser.add_argument("--only", nargs="*", type=int, help="numbers of the cases to run")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=900, help="seconds for one case")
    parser.add_argument("--json", type=Path, help="write every score here")
    arguments = parser.parse_args()
    scores = run(_asked(arguments), arguments.tool, arguments.jobs, arguments.timeout)
    text, targets = report(scores)
    whence = f"seed {arguments.seed}" if arguments.folder is None else str(arguments.folder)
    print(f"{arguments.tool}, {len(scores)} cases of {whence}\n\n{text}\n")
    for sentence, good in targets:
        print(f"{'reached' if good else 'MISSED '}  {sentence}")
    if arguments.json:
        document = {
            "schema": SCHEMA,
            "tool": arguments.tool,
            "seed": arguments.seed,
            "targets": [{"target": sentence, "reached": good} for sentence, good in targets],
            "cases": [score.to_json() for score in scores],
        }
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
