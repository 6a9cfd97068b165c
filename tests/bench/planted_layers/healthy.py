"""Count accusations where nothing is wrong: healthy engines and precisions, ill-conditioned networks among them.

``python -m tests.bench.planted_layers.healthy --seeds 2 --jobs 2 --json FILE``, from the root of the checkout.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from surgeon_passes.errors import EngineError
from tests.bench.planted_layers.baselines import guess
from tests.bench.planted_layers.ground import Ground
from tests.bench.planted_layers.ill_conditioned import ILL_CONDITIONED
from tests.bench.planted_layers.judge import ACCUSED, compare_pair
from tests.bench.planted_layers.models import ARCHITECTURES
from tests.bench.planted_layers.pairs import HEALTHY, PAIRS

SCHEMA = "surgeon.bench.healthy-layers/1"
LIMIT = 0.005
_NETWORK = re.compile(r"\b(model|other)\.onnx\b")
"""How an engine's failure on the network itself, not on a piece of it, is told."""
_NARROW = ("float32", "openvino", "float16", "bfloat16")
"""Pairs that ill-conditioned networks are compared on."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One network on one pair."""

    network: str
    seed: int
    pair: str
    ill: bool
    """Whether it is one of the ill-conditioned."""


@dataclasses.dataclass(frozen=True)
class Count:
    """What was said about one network."""

    job: Job
    verdicts: dict[str, int]
    """Layers by verdict."""
    accused: tuple[str, ...]
    """Layers called wrong, with the reason."""
    suspects: tuple[str, ...]
    """Layers called suspect, with the reason."""
    over_limit: int
    """Layers that the baseline of relative L2 over 1e-2 accuses."""
    low_cosines: int
    """Layers that the baseline of cosine below 0.99 accuses."""
    seconds: float
    refused: str = ""
    """Why an engine cannot run the network at all, whoever asks it."""
    error: str = ""
    """Why there was no comparison although both engines run it."""

    @property
    def layers(self) -> int:
        """Layers compared."""
        return sum(self.verdicts.values())


def jobs_of(seeds: int, pairs: Sequence[str]) -> list[Job]:
    """Every network on every pair, for each seed."""
    found = [Job(name, seed, pair, False) for seed in range(seeds) for name in ARCHITECTURES for pair in pairs]
    narrow = [pair for pair in pairs if pair in _NARROW]
    return found + [Job(name, seed, pair, True) for seed in range(seeds) for name in ILL_CONDITIONED for pair in narrow]


def count(job: Job) -> Count:
    """Compare one network; what fails is counted."""
    build = (ILL_CONDITIONED if job.ill else ARCHITECTURES)[job.network]
    pair = (HEALTHY | PAIRS)[job.pair]
    started = time.perf_counter()
    nothing = Count(job, {}, (), (), 0, 0, 0.0)
    try:
        ground = Ground.of(build(1000 + job.seed), pair, sample=job.seed)
    except EngineError as error:
        return dataclasses.replace(nothing, refused=str(error)[:300])
    except Exception as error:  # noqa: BLE001  (counted and shown, never dropped)
        return dataclasses.replace(nothing, error=f"not built: {type(error).__name__}: {error}"[:300])
    try:
        found = compare_pair(ground, pair.base)
    except Exception as error:  # noqa: BLE001
        words = f"{type(error).__name__}: {error}"[:300]
        # Engines have been seen to crash on a network whose inner tensors nobody asks for, and only then.
        as_it_is = isinstance(error, EngineError) and _NETWORK.search(words) is not None
        return dataclasses.replace(nothing, **{"refused" if as_it_is else "error": words})
    guesses = guess(ground.model, ground.reference, ground.target)
    said = {
        verdicts: tuple(
            f"{r.tensor} ({r.op}): {r.judgement.reason}" for r in found.layers if r.verdict.value in verdicts
        )
        for verdicts in (ACCUSED, ("suspect",))
    }
    verdicts = dict(collections.Counter(r.verdict.value for r in found.layers))
    seconds = time.perf_counter() - started
    return Count(
        job, verdicts, said[ACCUSED], said[("suspect",)], guesses.over_limit, guesses.low_cosines, seconds
    )  # fmt: skip


def table(title: str, groups: Sequence[tuple[str, list[Count]]]) -> str:
    """One row a group: layers by verdict, and what the baselines accuse."""
    heading = [
        "",
        "models",
        "refused",
        "errors",
        "layers",
        "wrong",
        "%",
        "suspect",
        "ill-cond.",
        "overflow",
        "|",
        "1e-2",
        "cos",
    ]
    rows = [heading]
    for name, counts in groups:
        layers = sum(c.layers for c in counts)
        wrong = sum(len(c.accused) for c in counts)
        said = [str(sum(c.verdicts.get(v, 0) for c in counts)) for v in ("suspect", "ill-conditioned", "overflow")]
        share = f"{wrong / layers:.2%}" if layers else "-"
        lost = [str(sum(bool(getattr(c, field)) for c in counts)) for field in ("refused", "error")]
        beside = [f"{sum(getattr(c, f) for c in counts) / max(1, layers):.1%}" for f in ("over_limit", "low_cosines")]
        rows.append([name, str(len(counts)), *lost, str(layers), str(wrong), share, *said, "|", *beside])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([title, *lines])


def by(key: Callable[[Count], str], counts: Sequence[Count]) -> list[tuple[str, list[Count]]]:
    """Counts in groups, in order of first appearance, and all of them."""
    names = list(dict.fromkeys(key(c) for c in counts))
    return [(name, [c for c in counts if key(c) == name]) for name in names] + [("all", list(counts))]


def run(jobs: Sequence[Job], workers: int) -> list[Count]:
    """All counts in the order of the jobs; accusations and failures go to standard error."""
    counts = []
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        for found in pool.map(count, jobs):
            counts.append(found)
            name = f"{found.job.network} {found.job.seed}, {found.job.pair}"
            marked = {
                "refused": [found.refused],
                "error": [found.error],
                "wrong": found.accused,
                "suspect": found.suspects,
            }
            for text in [f"[{mark}] {words}" for mark, texts in marked.items() for words in texts if words]:
                print(f"{name}: {text[:260]}", file=sys.stderr, flush=True)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="weights and inputs per network and pair")
    parser.add_argument("--pairs", nargs="*", default=list(HEALTHY), choices=list(HEALTHY))
    parser.add_argument("--networks", nargs="*", help="names of networks; all if none is given")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every count here")
    arguments = parser.parse_args()
    jobs = [
        job for job in jobs_of(arguments.seeds, arguments.pairs)
        if not arguments.networks or job.network in arguments.networks
    ]  # fmt: skip
    counts = run(jobs, arguments.jobs)
    plain, ill = ([c for c in counts if c.job.ill is flag] for flag in (False, True))
    print(table("networks, by pair", by(lambda c: c.job.pair, plain)))
    print("\n" + table("networks, by architecture", by(lambda c: c.job.network, plain)))
    print("\n" + table("ill-conditioned but healthy, by network", by(lambda c: c.job.network, ill)))
    print("\n" + table("ill-conditioned but healthy, by pair", by(lambda c: c.job.pair, ill)))
    layers, wrong = sum(c.layers for c in counts), sum(len(c.accused) for c in counts)
    suspects, errors = sum(len(c.suspects) for c in counts), sum(bool(c.error) for c in counts)
    targets = [
        (f"at most {LIMIT:.1%} of layers called wrong: {wrong} of {layers}", wrong <= LIMIT * layers),
        (f"nor suspect: {suspects}", suspects <= LIMIT * layers),
        (f"no comparison fails: {errors} of {len(counts)}", errors == 0),
    ]
    print()
    for sentence, good in targets:
        print(f"{'reached' if good else 'MISSED '}  {sentence}")
    if arguments.json:
        document = {
            "schema": SCHEMA,
            "targets": [{"target": sentence, "reached": good} for sentence, good in targets],
            "counts": [dataclasses.asdict(c) for c in counts],
        }
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
