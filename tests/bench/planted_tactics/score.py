"""Plays cases and prints how many were named exactly, and in how many builds.

    python -m tests.bench.planted_tactics.score --cases 224

Each version of the simulated library needs a process of its own, so there are two at a time.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.planted_tactics.cases import SUSPECTS, cases

VERSIONS = ("10.16", "11.4")
ROOT = Path(__file__).resolve().parents[3]
INSTALLED = ROOT / "tests" / "simulated_tensorrt" / "installed"


def main() -> None:
    """Play, or play one version's share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=224)
    parser.add_argument("--only", help="one kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--version", choices=VERSIONS, help="play this version's share, in this process")
    parser.add_argument("--triage", action="store_true", help="ask for a triage in each case, too")
    parser.add_argument("--json", type=Path, help="write all scores to a file")
    given = parser.parse_args()
    if given.version:
        _share(given)
        return
    rows = _both(sys.argv[1:])
    _print(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def _both(arguments: list[str]) -> list[dict[str, Any]]:
    started = []
    for version in VERSIONS:
        path = os.pathsep.join([str(INSTALLED / version), str(ROOT), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", __spec__.name, *arguments, "--version", version]
        started.append(
            subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
        )
    lines = [line for process in started for line in process.communicate()[0].splitlines()]
    return sorted((json.loads(line) for line in lines if line.startswith("{")), key=lambda row: row["number"])


def _share(given: argparse.Namespace) -> None:
    from tests.bench.planted_tactics.play import play

    for case in cases(given.first + given.cases)[given.first :]:
        if case.version != given.version or (given.only and case.kind != given.only):
            continue
        with tempfile.TemporaryDirectory(prefix="surgeon-", ignore_cleanup_errors=True) as folder:
            score = play(case, Path(folder), triage=given.triage)
        row = {**dataclasses.asdict(score), "in_bounds": score.in_bounds}
        print(json.dumps(row), flush=True)


def _print(rows: list[dict[str, Any]]) -> None:
    kinds: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    builds: dict[str, list[int]] = collections.defaultdict(list)
    for row in rows:
        kinds[row["kind"]][row["verdict"]] += 1
        builds[row["kind"]].append(row["builds"])
    print(f"{'kind':18}{'cases':>6}{'right':>7}{'missed':>8}{'wrong':>7}{'crashed':>9}{'builds, median':>16}")
    for kind, counts in kinds.items():
        right = counts["exact"] + counts["gave up"]
        middle = sorted(builds[kind])[len(builds[kind]) // 2]
        line = f"{kind:18}{counts.total():6}{right:7}{counts['missed']:8}{counts['wrong']:7}{counts['crashed']:9}"
        print(f"{line}{middle:16}")
    right = sum(row["verdict"] in ("exact", "gave up") for row in rows)
    print(f"{right} of {len(rows)} right ({right / max(1, len(rows)):.1%})")
    counted = [row for row in rows if row["verdict"] == "exact" and row["kind"] in _SINGLE]
    inside = sum(row["in_bounds"] for row in counted)
    print(f"{inside} of {len(counted)} single bad tactics within log2 M + 2, and K + 1 builds for the census")
    for row in counted:
        if not row["in_bounds"]:
            got = (
                f"{row['census_builds']} for {row['most']} tactics, {row['search_builds']} for {row['differing']} keys"
            )
            print(f"  {row['number']} {row['kind']} {row['family']} {row['version']}: {got}")
    asked = [row for row in rows if row["suspect"]]
    astray = [row for row in asked if row["suspect"] not in SUSPECTS[row["kind"]]]
    if asked:
        print(f"triage: {len(asked) - len(astray)} of {len(asked)} name the right search")
    for row in astray:
        print(f"  {row['number']} {row['kind']} {row['family']} {row['version']}: {row['suspect']}")
    for row in rows:
        if row["verdict"] in ("missed", "wrong", "crashed"):
            print(f"  {row['number']} {row['kind']} {row['family']} {row['version']}: {row['verdict']}: {row['words']}")


_SINGLE = (
    "wrong",
    "nan",
    "every",
    "non_opt",
    "execute_false",
    "execute_crash",
    "sticky",
    "garbage",
    "listener",
    "miss",
    "chosen_refused",
)

if __name__ == "__main__":
    main()
