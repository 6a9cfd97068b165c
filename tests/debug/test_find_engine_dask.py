"""Tactics, fusions and triage on the workers of a real Dask scheduler, which see the simulated TensorRT."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest

from surgeon_debug.find.auto import find_auto
from surgeon_debug.find.engine_builds import BuildRecord, Wish
from surgeon_debug.find.engine_ground import Question
from surgeon_debug.find.engine_trials import HowToSearch
from surgeon_debug.find.fusion import find_fusion
from surgeon_debug.find.tactic import find_tactic
from surgeon_debug.find.tensorrt_builds import TensorrtBuilder
from surgeon_debug.find.triage import Suspect
from surgeon_debug.values import Feeds, Value
from surgeon_passes.errors import BadOptionError
from tests.bench.planted_tactics.networks import network
from tests.debug.tensorrt_places import INSTALLED
from tests.simulated_tensorrt.plan import Fault, Plan, Where, write

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="the package distributed is not installed"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers see, with a model in it."""
    folder = tmp_path_factory.mktemp("shared")
    onnx.save(network("residual", 1, 2), folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def cluster(place: Path) -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    for name in ("distributed", "distributed.nanny", "distributed.scheduler"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(INSTALLED / "11.4"))  # what processes that start now have as well
        for name, value in write(Plan(), place / "plan.json").items():
            patch.setenv(name, value)
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as made:
            yield made


def how(cluster: Any, resume: Path | None = None) -> HowToSearch:
    return HowToSearch(workers=cluster.scheduler_address, resume=resume)


def test_a_bad_kernel_is_named_by_workers(place: Path, tmp_path: Path, cluster: Any) -> None:
    """The library is on the workers only; the model, its inputs, pins and caches have to get there and back."""
    write(Plan(faults=(Fault("wrong_values", Where(node="matmul_4", rank=0), amount=1.0),)), place / "plan.json")
    found = find_tactic(Question(place / "model.onnx"), output=tmp_path / "good.cache", how=how(cluster))
    (one,) = found.culprits
    assert one.members[0].nodes[0] == "matmul_4"
    assert (one.alone, one.cured) == (True, True)
    assert (tmp_path / "good.cache").stat().st_size > 0
    assert find_auto(Question(place / "model.onnx"), how=how(cluster)).suspect is Suspect.TACTIC


def test_a_bad_fusion_is_named_by_workers(place: Path, cluster: Any) -> None:
    fault = Fault("wrong_values", Where(node="matmul_4"), fused_with=("tanh_6",), amount=1.0)
    write(Plan(faults=(fault,)), place / "plan.json")
    found = find_fusion(Question(place / "model.onnx"), how=how(cluster))
    assert [one.nodes for one in found.culprits] == [("matmul_4", "add_5", "tanh_6")]
    assert len(found.knobs) == 1


def test_caches_that_stay_with_a_worker_are_told(place: Path, tmp_path: Path, cluster: Any) -> None:
    write(Plan(), place / "plan.json")
    folder = tmp_path / "mine"

    def elsewhere(made: TensorrtBuilder) -> Elsewhere:
        return Elsewhere(made.label)

    with pytest.raises(BadOptionError, match=r"not to be seen here.*--resume a folder that this machine and all"):
        find_tactic(Question(place / "model.onnx"), how=how(cluster, folder), builder=elsewhere)


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A builder whose files are on no disk of this machine."""

    label: str

    def make(self) -> Elsewhere:
        return self

    precision = None

    def build(self, wish: Wish) -> BuildRecord:
        return BuildRecord({"0x" + "0" * 32: "0x1"}, cache="/nowhere/timing.cache")

    def run(self, feeds: Feeds) -> Mapping[str, Value]:
        return dict(feeds)

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass
