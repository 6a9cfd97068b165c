"""An oracle with a real engine, in a process of its own, that tells of each of its runs in a file."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from surgeon_debug.find.oracle import FailureKind, Signature, TrialRecord
from surgeon_debug.runners.catalogue import make_engine

SIZE = 128
MODEL = f"""
<ir_version: 8, opset_import: ["" : 13]>
masked (float[{SIZE}] x) => (float[{SIZE}] y) {{ y = Identity(x) }}
"""


class Masked:
    """Gives back what it gets, except for one element, and appends a line to a file when it begins and is done."""

    def __init__(self, log: str, culprit: int = 37, seconds: float = 0.05, spin: bool = False) -> None:
        self.log, self.culprit, self.seconds, self.spin = Path(log), culprit, seconds, spin

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        pass

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        x = np.array(feeds["x"])
        name = f"{os.getpid()} {','.join(map(str, np.flatnonzero(x)))}"
        with self.log.open("a") as file:
            print("begin", name, file=file)
        if self.spin:
            end = time.process_time() + self.seconds
            while time.process_time() < end:
                pass
        else:
            time.sleep(self.seconds)
        if x[self.culprit]:
            x[self.culprit] = -1
        with self.log.open("a") as file:
            print("done", name, file=file)
        return {"y": x}


@dataclasses.dataclass(frozen=True)
class EngineSpec:
    folder: Path
    seconds: float = 0.05
    spin: bool = False

    @property
    def log(self) -> Path:
        return self.folder / "engine.log"

    def address(self) -> str:
        return "masked"

    def make(self) -> EngineOracle:
        return EngineOracle(self)


class EngineOracle:
    def __init__(self, spec: EngineSpec) -> None:
        options = f"log={spec.log},seconds={spec.seconds},spin={spec.spin}"
        self.engine = make_engine(f"{__file__}:Masked:{options}", isolated=True)
        self.model = spec.folder / f"model_{os.getpid()}_{id(self)}.onnx"
        onnx.save(onnx.parser.parse_model(MODEL), str(self.model))
        self.prepared = False

    def evaluate(self, elements: frozenset[int], attempt: int) -> TrialRecord:
        if not self.prepared:
            self.engine.prepare(self.model, ["y"])
            self.prepared = True
        x = np.zeros(SIZE, np.float32)
        x[list(elements)] = 1
        started = time.monotonic()
        y = self.engine.run({"x": x})["y"]
        wrong = not np.array_equal(x, y)
        found = Signature(FailureKind.WRONG_NUMBERS) if wrong else None
        return TrialRecord(found, seconds=time.monotonic() - started, runs=1)

    def abort(self) -> None:
        self.engine.abort()

    def close(self) -> None:
        self.engine.close()


def is_alive(pid: int) -> bool:
    """Whether a process is there and is more than an entry that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
