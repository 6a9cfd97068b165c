"""Write cases to a folder, and beside them the mock engine that they need.

``python -m tests.bench.planted.make --cases 320 --seed 7 OUT``, from the root of the checkout.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
import shutil
import sys
from pathlib import Path

import tests.bench.planted
import tests.bench.planted_layers
from tests.bench.planted.cases import KINDS, Spec, draw_specs, plant
from tests.bench.planted.models import sizes

_ENGINE = ("engine.py", "plan.py", "fusion.py", "spoil.py", "rewrites.py")


def write_engine(folder: Path) -> None:
    """Copy the mock engine, so that a folder of cases needs nothing else than numpy, onnx and onnxruntime."""
    for package, names in ((tests.bench.planted, _ENGINE), (tests.bench.planted_layers, ("corrupt.py",))):
        source = Path(str(package.__file__)).parent
        parts = package.__name__.split(".")
        target = folder.joinpath("engine", *parts)
        target.mkdir(parents=True, exist_ok=True)
        for depth in range(1, len(parts) + 1):
            folder.joinpath("engine", *parts[:depth], "__init__.py").touch()
        for name in names:
            shutil.copy(source / name, target / name)


def _write(job: tuple[Spec, Path]) -> tuple[str, int, str]:
    spec, folder = job
    case = plant(spec)
    case.write(folder)
    return case.spec.name, case.nodes, case.planted.truth.cause


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", type=int, default=320)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kinds", nargs="*", choices=KINDS)
    parser.add_argument("--sizes", nargs="*", choices=list(sizes()))
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_engine(arguments.out)
    specs = draw_specs(arguments.cases, arguments.seed, arguments.kinds, arguments.sizes)
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
        for name, nodes, cause in pool.map(_write, [(spec, arguments.out) for spec in specs]):
            print(f"{name}, {nodes} nodes: {cause}", file=sys.stderr, flush=True)
    kinds = collections.Counter(spec.kind for spec in specs)
    print(json.dumps({"cases": len(specs), "seed": arguments.seed, "kinds": kinds}, indent=1))


if __name__ == "__main__":
    main()
