"""Killed with ``kill -9`` at random moments and begun again, a search says the same and repeats no finished trial."""

from __future__ import annotations

import collections
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from surgeon_debug.find.remember import Remembering
from surgeon_debug.journal import NAME, Journal
from tests.debug.logged_oracle import lines_of
from tests.debug.masked_engine import EngineSpec, is_alive

ROOT = Path(__file__).parents[2]
_LONGEST = 1.6  # seconds; about what one lane takes for all of it
_KILLS = 3  # in a row: after four in one and the same trial, it is suspected


def begin(folder: Path, lanes: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.debug.killed_search", str(folder), str(lanes)], cwd=ROOT)


def kill_and_resume(folder: Path, lanes: int, chance: random.Random) -> int:
    """Run a search, kill it up to three times on the way, and let it finish; the number of kills."""
    kills = 0
    for _ in range(_KILLS):
        search = begin(folder, lanes)
        try:
            search.wait(chance.uniform(0.05, _LONGEST))
            break
        except subprocess.TimeoutExpired:
            search.kill()
            search.wait()
            kills += 1
    else:
        search = begin(folder, lanes)
    assert search.wait(60) == 0
    return kills


def check_history(folder: Path, lanes: int, kills: int) -> None:
    said = json.loads((folder / "answer.json").read_text())
    assert said["culprits"] == [[37]]
    assert said["certain"]
    assert said["checks"] == ["reproduces", "clean", "reproduces", "clean", *["reproduces"] * 4]
    spec = EngineSpec(folder)
    begun: collections.Counter[str] = collections.Counter()
    ended: set[str] = set()
    let_go: set[str] = set()  # under way when the search had its answer
    for line in (folder / NAME).read_text().splitlines()[1:]:
        content = json.loads(line)["of"]
        assert content["key"] not in ended, "something was begun or ended after it had ended"
        if content["do"] == "begin":
            begun[content["key"]] += 1
        elif content["do"] == "end":
            ended.add(content["key"])
        else:
            let_go.add(content["key"])
    assert set(begun) - ended <= let_go, "a trial was forgotten"
    assert lanes > 1 or not let_go
    assert sum(begun.values()) - len(ended) - len(let_go) <= kills * lanes
    remember = Remembering(spec.address(), Journal(None))
    runs: collections.Counter[str] = collections.Counter()
    for line in lines_of(spec.log, "done"):
        elements = line.split()[2] if len(line.split()) > 2 else ""
        runs[remember._trial_key([int(n) for n in elements.split(",") if n], 0)] += 1
    assert ended <= set(runs) <= ended | let_go
    assert all(runs[key] <= begun[key] for key in runs), "an engine ran what the journal does not know of"
    assert not any(is_alive(int(line.split()[1])) for line in lines_of(spec.log, "begin")), "an engine was left behind"


def kill_times(folder: Path, count: int, seed: int) -> None:
    chance, kills, number = random.Random(seed), 0, 0
    while kills < count:
        lanes, place = 1 + number % 2, folder / str(number)
        place.mkdir()
        killed = kill_and_resume(place, lanes, chance)
        time.sleep(0.1)
        check_history(place, lanes, killed)
        kills, number = kills + killed, number + 1


def test_killed_six_times_a_search_says_the_same(tmp_path: Path) -> None:
    kill_times(tmp_path, 6, seed=1)


@pytest.mark.slow
def test_killed_fifty_times_a_search_says_the_same(tmp_path: Path) -> None:
    kill_times(tmp_path, 50, seed=2)
