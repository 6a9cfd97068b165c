"""The search for bad tactics on a scripted builder: who is named, how many builds it takes, what is never accused."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path

import pytest

from surgeon_debug.find.engine_builds import BuildRecord, Wish
from surgeon_debug.find.engine_trials import HowToSearch
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.tactic_finding import TacticFinding
from surgeon_debug.find.tactic_search import KnownBuild, TacticSearch
from surgeon_debug.search.budget import Budget
from tests.debug.scripted_builds import Fault, ScriptedBuilder, ScriptedBuilds, hash_of, key_of, scripted_spec


def search(
    folder: Path,
    builder: ScriptedBuilder,
    *,
    good: tuple[int, ...] | None = None,
    how: HowToSearch | None = None,
    every: bool = False,
) -> TacticFinding:
    known = None
    if good is not None:
        tactics = {key_of(i): hash_of(i, t) for i, t in enumerate(good)}
        known = KnownBuild(record=BuildRecord(tactics, builder.tables()))
    spec = scripted_spec(folder, builder)
    return TacticSearch(spec, how or HowToSearch(), good=known, every=every).run("model.onnx", ("ort", "trt"))


def named(found: TacticFinding) -> list[set[tuple[str, str]]]:
    return [{(m.key, m.bad.hash) for m in one.members} for one in found.culprits]


def bad(*tactics: tuple[int, int], effect: str = "wrong", every: int = 1) -> Fault:
    return Fault(frozenset((key_of(i), hash_of(i, t)) for i, t in tactics), effect, every)


def builds_of(found: TacticFinding, *steps: str) -> int:
    return sum(step.builds for step in found.steps if step.name in steps)


@pytest.mark.parametrize("keys", [1, 2, 3, 5, 16, 33, 100])
def test_with_a_good_build_it_takes_the_logarithm_and_two(tmp_path: Path, keys: int) -> None:
    for culprit in {0, keys // 2, keys - 1}:
        builder = ScriptedBuilder((4,) * keys, (bad((culprit, 0)),))
        found = search(tmp_path, builder, good=(1,) * keys)
        assert named(found) == [{(key_of(culprit), hash_of(culprit, 0))}]
        (one,) = found.culprits
        assert (one.alone, one.cured) == (True, True)
        assert one.members[0].good.hash == hash_of(culprit, 1)
        assert one.members[0].nodes == (f"node{culprit}",)
        assert found.builds - 2 <= math.ceil(math.log2(keys)) + 2


def test_only_tactics_that_differ_are_suspected(tmp_path: Path) -> None:
    builder = ScriptedBuilder((4,) * 64, (bad((3, 0)),))
    good = tuple(int(i in (1, 3, 9)) for i in range(64))
    found = search(tmp_path, builder, good=good)
    assert found.differing == 3
    assert named(found) == [{(key_of(3), hash_of(3, 0))}]
    assert found.builds <= 2 + 2 + 2


@pytest.mark.parametrize("tactics", [1, 2, 5, 8])
def test_without_one_a_census_takes_no_more_than_the_tactics_and_one(tmp_path: Path, tactics: int) -> None:
    builder = ScriptedBuilder((tactics,) * 20, (bad((7, 0)),))
    found = search(tmp_path, builder)
    assert builds_of(found, "record", "replay", "census") <= tactics + 1
    if tactics == 1:
        assert found.outcome is FindOutcome.UNDECIDED
        assert "second tactic" in found.reason
        return
    assert named(found) == [{(key_of(7), hash_of(7, 0))}]
    assert found.coverage is not None
    assert found.coverage.tactics == 20 * tactics


def test_a_census_of_everything_gives_every_tactic_a_verdict(tmp_path: Path) -> None:
    builder = ScriptedBuilder((5, 3, 4, 1), (bad((2, 0)), bad((0, 3))))
    found = search(tmp_path, builder, every=True)
    assert sorted(map(sorted, named(found))) == [[(key_of(0), hash_of(0, 3))], [(key_of(2), hash_of(2, 0))]]
    assert found.coverage is not None
    assert found.coverage.clean + found.coverage.failing == found.coverage.tactics == 13
    assert found.coverage.alone == 1


def test_two_bad_tactics_are_both_named(tmp_path: Path) -> None:
    builder = ScriptedBuilder((3,) * 30, (bad((4, 0)), bad((21, 0), effect="nan")))
    found = search(tmp_path, builder)
    assert sorted(map(sorted, named(found))) == [[(key_of(4), hash_of(4, 0))], [(key_of(21), hash_of(21, 0))]]
    assert all(one.cured is not None for one in found.culprits)
    assert found.builds <= 3 + 1 + 2 * (math.ceil(math.log2(30)) + 2)


def test_a_tactic_that_is_bad_only_with_another_one(tmp_path: Path) -> None:
    builder = ScriptedBuilder((3,) * 30, (bad((4, 0), (21, 0)),))
    found = search(tmp_path, builder)
    assert named(found) == [{(key_of(4), hash_of(4, 0)), (key_of(21), hash_of(21, 0))}]
    assert found.builds <= 3 + 1 + math.ceil(math.log2(30)) + 2 + math.ceil(math.log2(30)) + 1


def test_rounds_that_all_fail_are_not_the_end(tmp_path: Path) -> None:
    faults = (bad((2, 0)), bad((5, 1)), bad((9, 2)))
    found = search(tmp_path, ScriptedBuilder((3,) * 12, faults))
    assert {(key_of(2), hash_of(2, 0))} in named(found)
    assert builds_of(found, "record", "replay", "census") <= 3 + 1
    assert builds_of(found, "guesses") <= 16


def test_tactics_that_mask_each_other_are_found_within_the_bound(tmp_path: Path) -> None:
    draw = random.Random(5)
    missed = 0
    for _ in range(40):
        counts = tuple(draw.randint(2, 4) for _ in range(draw.randint(3, 20)))
        one, two = draw.sample(range(len(counts)), 2)
        # The second tactic is bad in the round that is free of the first.
        faults = (bad((one, 0)), *(bad((two, tactic)) for tactic in range(1, counts[two])))
        found = search(tmp_path, ScriptedBuilder(counts, faults))
        rounds = max(counts)
        assert found.builds <= rounds + 1 + 16 + 2 * (len(counts).bit_length() + 2) + 2
        assert named(found) in ([{(key_of(one), hash_of(one, 0))}], [])
        missed += not found.culprits
    assert missed <= 2


@pytest.mark.parametrize("every", [2, 3])
def test_a_kernel_that_is_wrong_now_and_then(tmp_path: Path, every: int) -> None:
    found = search(tmp_path, ScriptedBuilder((3,) * 20, (bad((11, 0), every=every),)))
    assert named(found) == [{(key_of(11), hash_of(11, 0))}]
    assert found.rate is not None


@pytest.mark.parametrize("effect", ["refuse", "hang", "unpinned", "miss", "crash", "crash build"])
def test_a_build_that_tells_nothing_accuses_nobody(tmp_path: Path, effect: str) -> None:
    builder = ScriptedBuilder((4,) * 16, (bad((5, 0)), bad((9, 1), effect=effect)))
    for good in (None, (1,) * 16):
        found = search(tmp_path, builder, good=good)
        assert all((key_of(9), hash_of(9, 1)) not in one for one in named(found))
        if good is None or effect == "miss":
            assert named(found) == [{(key_of(5), hash_of(5, 0))}]
    census = search(tmp_path, builder)
    assert bool(census.unusable) is (effect not in ("miss",))


def test_a_build_that_does_not_replay_is_refused_by_the_keys(tmp_path: Path) -> None:
    builder = ScriptedBuilder((3,) * 5, (bad((1, 0)),), drift=(key_of(3), key_of(4)))
    found = search(tmp_path, builder)
    assert found.outcome is FindOutcome.UNDECIDED
    assert found.moved == (key_of(3), key_of(4))
    assert "does not replay" in found.reason
    assert "op3" in found.reason
    assert found.builds == 2


@pytest.mark.parametrize(("effect", "more"), [("wrong", 0), ("nan", 3), ("crash", 3)])
@pytest.mark.parametrize(("tactics", "keys"), [(2, 1), (3, 6), (8, 24)])
def test_what_is_no_tactic_is_said_early(tmp_path: Path, effect: str, more: int, tactics: int, keys: int) -> None:
    found = search(tmp_path, ScriptedBuilder((tactics,) * keys, (Fault(frozenset(), effect),)))
    assert found.outcome is FindOutcome.UNDECIDED
    assert not found.culprits
    assert found.reason.startswith("no choice of tactics that was tried makes it right")
    assert "not a tactic (or several at once)" in found.reason
    assert "find auto" in found.advice
    assert "find nodes" in found.advice
    assert found.coverage is not None
    assert found.coverage.failing == tactics * keys
    assert found.builds <= tactics + 1 + more


def test_rounding_beside_a_limit_is_no_tactics_fault(tmp_path: Path) -> None:
    """Some builds pass by a hair: that is no verdict, and nothing that stands in the way of builds."""
    found = search(tmp_path, ScriptedBuilder((5,) * 21, (Fault(frozenset(), "near"),)))
    assert found.outcome is FindOutcome.UNDECIDED
    assert not found.culprits
    assert not found.unusable
    assert builds_of(found, "record", "replay", "census") <= 5 + 1
    assert found.builds <= 5 + 1 + 16


def test_a_good_build_that_fails_as_well_accuses_nobody(tmp_path: Path) -> None:
    found = search(tmp_path, ScriptedBuilder((3,) * 6, (Fault(frozenset()),)), good=(1,) * 6)
    assert found.outcome is FindOutcome.UNDECIDED
    assert not found.culprits


def test_a_build_that_is_right_is_left_alone(tmp_path: Path) -> None:
    found = search(tmp_path, ScriptedBuilder((3,) * 6))
    assert found.outcome is FindOutcome.NOTHING
    assert found.builds == 1
    latent = search(tmp_path, ScriptedBuilder((3,) * 6, (bad((2, 2)),)), every=True)
    assert named(latent) == [{(key_of(2), hash_of(2, 2))}]


def test_no_engine_at_all(tmp_path: Path) -> None:
    found = search(tmp_path, ScriptedBuilder((3,) * 6, (Fault(frozenset(), "refuse"),)))
    assert found.outcome is FindOutcome.UNDECIDED
    assert "no engine" in found.reason


def test_what_is_remembered_is_not_built_again(tmp_path: Path) -> None:
    log = tmp_path / "builds"
    builder = ScriptedBuilder((3,) * 10, (bad((4, 0)),), log=str(log))
    how = HowToSearch(resume=tmp_path / "trials")
    first = search(tmp_path, builder, how=how)
    count = len(log.read_text().splitlines())
    assert count == first.builds
    again = search(tmp_path, builder, how=how)
    assert len(log.read_text().splitlines()) == count
    assert again.builds == 0
    assert named(again) == named(first)


def test_a_budget_ends_it_with_what_is_known(tmp_path: Path) -> None:
    builder = ScriptedBuilder((3,) * 100, (bad((4, 0)),))
    for most in range(1, 14):
        found = search(tmp_path, builder, how=HowToSearch(budget=Budget(trials=most)))
        if not found.culprits:
            assert found.outcome is FindOutcome.UNDECIDED
            assert "ended before" in found.reason
        else:
            assert named(found) == [{(key_of(4), hash_of(4, 0))}]


def test_several_at_a_time_find_the_same(tmp_path: Path) -> None:
    builder = ScriptedBuilder((3,) * 40, (bad((17, 0)),))
    assert named(search(tmp_path, builder, how=HowToSearch(jobs=3))) == [{(key_of(17), hash_of(17, 0))}]


def test_any_pair_of_bad_tactics_and_any_build_that_fails(tmp_path: Path) -> None:
    draw = random.Random(3)
    for _ in range(60):
        counts = tuple(draw.randint(1, 6) for _ in range(draw.randint(2, 25)))
        rich = [i for i, count in enumerate(counts) if count > 2]
        if len(rich) < 3:
            continue
        culprit, troubled = draw.sample(rich, 2)
        faults = (bad((culprit, 0)), bad((troubled, draw.randint(1, counts[troubled] - 1)), effect="refuse"))
        found = search(tmp_path, ScriptedBuilder(counts, faults))
        assert named(found) == [{(key_of(culprit), hash_of(culprit, 0))}], (counts, faults)


@pytest.mark.parametrize("after", [1, 2, 3, 5])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_mistake_in_a_program_is_no_outcome(tmp_path: Path, after: int, jobs: int) -> None:
    """In the record, the replay, the census and a bisection, each of which asks in another way."""
    spec = scripted_spec(tmp_path, MistakenBuilder((3,) * 20, (bad((4, 0)),), after=after, log=str(tmp_path / "log")))
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        TacticSearch(spec, HowToSearch(jobs=jobs)).run("model.onnx", ("ort", "trt"))


@dataclasses.dataclass(frozen=True)
class MistakenBuilder(ScriptedBuilder):
    after: int = 0

    def make(self) -> MistakenBuilds:
        return MistakenBuilds(self)


class MistakenBuilds(ScriptedBuilds):
    def __init__(self, script: MistakenBuilder) -> None:
        super().__init__(script)
        self._after, self._lines = script.after, Path(script.log)

    def build(self, wish: Wish) -> BuildRecord:
        found = super().build(wish)
        if len(self._lines.read_text().splitlines()) >= self._after:
            raise ZeroDivisionError("a mistake")
        return found
