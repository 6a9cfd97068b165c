"""A mock engine: onnxruntime with fusions, tactics, a virtual price and faults, all decided by one file.

As a runner it is ``tests/bench/planted/engine.py:MockEngine:plan=FILE``. As a command it is a check for any tool that
searches by exit codes, 0 for good, 1 for bad and 125 where nobody can tell:

    python tests/bench/planted/engine.py check MODEL --plan FILE [--inputs NPZ]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx

if not __package__:  # used by path: what it needs lies beside it, three folders up is where that begins
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.bench.planted.fusion import share_of, tactic_of, windows_of
from tests.bench.planted.plan import BY_ENDING, CRASH, HANG, EnginePlan, Wrong
from tests.bench.planted.spoil import round_floats, spoil

GOOD, BAD, CANNOT_TELL = 0, 1, 125
_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


class MockEngine:
    """Runs a model with onnxruntime as a plan says; wherever a node with a fault occurs, it is faulty.

    Args:
        plan: A file that :meth:`EnginePlan.write` made, or a plan.
        noise: Stands for the noise in timings, instead of the plan's: with another number other tactics win.
    """

    def __init__(self, plan: str | Path | EnginePlan, noise: int | None = None) -> None:
        self._path = None if isinstance(plan, EnginePlan) else Path(plan)
        self._plan = plan if isinstance(plan, EnginePlan) else EnginePlan.read(Path(plan))
        self._noise = self._plan.noise if noise is None else noise
        self._session: Any = None
        self._coins: tuple[tuple[str, Wrong, bool], ...] = ()
        self._endings: tuple[Wrong, ...] = ()
        self._given: frozenset[str] = frozenset()
        self._outputs: list[str] = []
        self._model = ""
        self._tossed = itertools.count()
        self.builds = 0
        """Models compiled by this object."""
        self.runs = 0
        """Runs of this object."""
        self.seconds = 0.0
        """Virtual time spent on builds by this object."""

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; it has to prepare anew."""
        plan = self._path.absolute() if self._path else self._plan
        return {"plan": plan, "noise": self._noise}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        MockEngine.__init__(self, **state)

    @property
    def precision(self) -> str | None:
        """The type it computes in, if that is not the model's own."""
        return self._plan.precision or None

    def prepare(self, model_path: str | Path, outputs: Sequence[str]) -> None:
        """Compile a model.

        Args:
            model_path: An ONNX file.
            outputs: The outputs wanted; tensors inside the model must have been made outputs of it.
        """
        self.close()
        path = Path(model_path)
        model = onnx.load(str(path), load_external_data=False)
        self._model = path.name
        windows = windows_of(model.graph, self._plan.seed, self._plan.fused)
        self.builds += 1
        price = self._plan.base_seconds + self._plan.node_seconds * len(model.graph.node)
        self.seconds += price
        words = {"did": "build", "nodes": len(model.graph.node), "windows": len(windows), "seconds": price}
        self._record({**words, "model": self._model})
        active = [fault for fault in self._plan.faults if self._is_active(fault, windows)]
        there = _computed(model.graph)
        endings = [f for f in active if f.effect in BY_ENDING and f.tensor in there and self._has_shape(f, model)]
        for fault in endings:
            if not fault.while_running and self._toss(fault):
                self._end(fault, "preparing")
        self._endings = tuple(fault for fault in endings if fault.while_running)
        self._compile(model, path, [fault for fault in active if fault.effect not in BY_ENDING], outputs)

    def _compile(self, model: onnx.ModelProto, path: Path, faults: list[Wrong], outputs: Sequence[str]) -> None:
        import onnxruntime as ort

        spoilt = spoil(model.graph, faults)
        self._coins = tuple((coin, fault, self._toss(fault)) for coin, fault in spoilt.coins)
        if self._plan.precision:
            round_floats(model, self._plan.precision)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[self._plan.optimize])
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.resolve().parent)
        )
        self._session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        self._given = frozenset(info.name for info in self._session.get_inputs())
        there = [info.name for info in self._session.get_outputs()]
        self._outputs = [name for name in dict.fromkeys(outputs) if name in there]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the compiled model once."""
        if self._session is None:
            raise RuntimeError("no model was compiled")
        self.runs += 1
        self._record({"did": "run", "model": self._model})
        for fault in self._endings:
            if self._toss(fault):
                self._end(fault, "running")
        sent = {name: np.asarray(value) for name, value in feeds.items() if name in self._given}
        for coin, fault, once in self._coins:
            sent[coin] = np.array(once if fault.per_build else self._toss(fault))
        return dict(zip(self._outputs, self._session.run(self._outputs, sent), strict=True))

    def close(self) -> None:
        """Drop what was compiled."""
        self._session = None
        self._coins = self._endings = ()

    def _is_active(self, fault: Wrong, windows: Sequence[tuple[str, ...]]) -> bool:
        if fault.window and not any(set(fault.window) <= set(window) for window in windows):
            return False
        return not fault.key or tactic_of(fault.key, self._plan.seed, self._plan.tactics, self._noise) == fault.tactic

    def _has_shape(self, fault: Wrong, model: onnx.ModelProto) -> bool:
        """Whether the tensor may have the shape that the fault needs."""
        if not fault.shape:
            return True
        known = onnx.shape_inference.infer_shapes(model).graph
        for info in (*known.value_info, *known.output):
            if info.name == fault.tensor and info.type.tensor_type.HasField("shape"):
                dims = info.type.tensor_type.shape.dim
                sizes = [dim.dim_value for dim in dims]
                same = len(sizes) == len(fault.shape)
                return same and all(a in (0, b) for a, b in zip(sizes, fault.shape, strict=True))
        return True

    def _toss(self, fault: Wrong) -> bool:
        """Whether a fault shows now; the next number of a sequence that goes on from process to process."""
        if fault.probability >= 1.0:
            return True
        return share_of(self._plan.seed, "coin", fault.tensor, self._next_toss()) < fault.probability

    def _next_toss(self) -> int:
        if self._path is None:
            return next(self._tossed)
        # A file that grows by a byte counts for all processes that append to it.
        file = os.open(self._path.with_suffix(".tosses"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, b".")
            return os.lseek(file, 0, os.SEEK_CUR)
        finally:
            os.close(file)

    def _record(self, words: Mapping[str, Any]) -> None:
        if not self._plan.log:
            return
        folder = self._path.parent if self._path else Path()
        with (folder / self._plan.log).open("a", encoding="utf-8") as file:
            file.write(json.dumps(words) + "\n")

    def _end(self, fault: Wrong, while_: str) -> NoReturn:
        """End as the fault says."""
        if fault.effect == CRASH and self._plan.real:
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault.effect == HANG and self._plan.real:
            while True:
                time.sleep(60)
        words = {
            CRASH: f"the mock engine crashed while {while_} {self._model}, ended by SIGSEGV",
            HANG: f"the mock engine hung while {while_} {self._model}",
        }
        self.close()
        # In one session an engine has one reason to refuse; the number tells it from others.
        refused = f"the mock engine has no kernel for this: error {zlib.crc32(fault.tensor.encode()) % 90 + 10}"
        raise _failure(words.get(fault.effect, refused), fault.effect)


def _failure(words: str, effect: str) -> Exception:
    """The error that says how an engine ended; a plain one where the package that knows more is not installed."""
    try:
        from surgeon_debug.endings import Ending, EngineFailure
    except ImportError:
        return RuntimeError(words)
    endings = {CRASH: Ending.CRASHED, HANG: Ending.HUNG}
    return EngineFailure(words, ending=endings.get(effect, Ending.REFUSED))


def _computed(graph: onnx.GraphProto) -> set[str]:
    """Names of all tensors that nodes compute, those in bodies too."""
    found: set[str] = set()
    stack = [graph]
    while stack:
        for node in stack.pop().node:
            found.update(node.output)
            stack += [a.g for a in node.attribute if a.HasField("g")]
            stack += [g for a in node.attribute for g in a.graphs]
    return found


def made_up(model: onnx.ModelProto, seed: int = 0, given: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Inputs for a model: those that are given, and seeded numbers for the others."""
    feeds: dict[str, np.ndarray] = {}
    weights = {tensor.name for tensor in model.graph.initializer}
    for info in model.graph.input:
        if info.name in weights:
            continue
        if given is not None and info.name in given:
            feeds[info.name] = np.asarray(given[info.name])
            continue
        kind = info.type.tensor_type
        shape = [dim.dim_value or 2 for dim in kind.shape.dim]
        rng = np.random.default_rng([seed, zlib.crc32(info.name.encode())])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        whole = dtype.kind in "iub"
        feeds[info.name] = (rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)).astype(dtype)
    return feeds


def relative_l2(reference: np.ndarray, value: np.ndarray) -> float:
    """Norm of the difference over the norm of the reference; infinite for other shapes, or NaN on one side only."""
    if reference.shape != value.shape or reference.dtype != value.dtype:
        return float("inf")
    if reference.dtype.kind in "iub":
        return 0.0 if np.array_equal(reference, value) else float("inf")
    r, v = (np.asarray(x).astype(np.float64).reshape(-1) for x in (reference, value))
    with np.errstate(all="ignore"):
        same = (r == v) | (np.isnan(r) & np.isnan(v))
        if not np.isfinite(r[~same]).all() or not np.isfinite(v[~same]).all():
            return float("inf")
        error, size = np.linalg.norm((v - r)[~same]), np.linalg.norm(r[np.isfinite(r)])
    return float(error / size) if size > 0 else (0.0 if error == 0 else float("inf"))


def worst_output(reference: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> float:
    """The largest error of any output; infinite if one is missing."""
    return max((relative_l2(r, values[k]) if k in values else float("inf") for k, r in reference.items()), default=0.0)


def check(model_path: Path, plan_path: Path, inputs: Path | None = None) -> tuple[int, str]:
    """Whether the mock engine computes what plain onnxruntime does.

    Returns:
        The exit code and one phrase.
    """
    try:
        model = onnx.load(str(model_path))
        given = dict(np.load(inputs)) if inputs else None
        feeds = made_up(model, given=given)
        right = MockEngine(EnginePlan())
        names = [info.name for info in model.graph.output]
        right.prepare(model_path, names)
        reference = right.run(feeds)
    except Exception as error:  # noqa: BLE001  (whatever it is, the mock engine is not to blame)
        return CANNOT_TELL, f"onnxruntime cannot run it: {error}"
    engine = MockEngine(plan_path)
    try:
        engine.prepare(model_path, names)
        values = engine.run(feeds)
    except Exception as error:  # noqa: BLE001
        return BAD, str(error)
    worst, limit = worst_output(reference, values), EnginePlan.read(plan_path).limit
    return (GOOD if worst <= limit else BAD), f"relative L2 {worst:.3g}, limit {limit:g}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="0 if the mock engine is right about a model, 1 if wrong, else 125")
    checking.add_argument("model", type=Path)
    checking.add_argument("--plan", type=Path, required=True)
    checking.add_argument("--inputs", type=Path, help=".npz; what it lacks is made up")
    arguments = parser.parse_args()
    code, words = check(arguments.model, arguments.plan, arguments.inputs)
    print(words)
    return code


if __name__ == "__main__":
    sys.exit(main())
