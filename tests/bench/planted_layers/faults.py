"""A wrong engine: computes with a right one, except for chosen nodes, wherever and in whatever piece they occur.

As a runner it is ``tests/bench/planted_layers/faults.py:FaultyEngine:plan=FILE``; the file says which engine and which
faults. The faults are nodes of the model that the engine gets, so that a wrong tensor is what the nodes behind it read,
just as with a wrong kernel.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from surgeon_debug.runners.catalogue import make_engine

try:
    from tests.bench.planted_layers.corrupt import Fault, spoil
except ModuleNotFoundError:  # used by path from another folder: this file's own folder is where imports are looked for
    from corrupt import Fault, spoil  # type: ignore[no-redef,import-not-found]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a wrong engine does."""

    base: str
    """The text of the runner that computes."""
    faults: tuple[Fault, ...] = ()
    """Where it is wrong; a healthy engine if there is none."""

    def write(self, path: Path) -> None:
        """Save as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Load what :meth:`write` saved."""
        found = json.loads(path.read_text())
        lists = ("shape", "places")
        faults = [Fault(**{k: tuple(v) if k in lists else v for k, v in item.items()}) for item in found["faults"]]
        return cls(found["base"], tuple(faults))


class FaultyEngine:
    """Run a model with another runner, some of its nodes computing wrongly.

    Args:
        plan: A file that :meth:`Plan.write` made, or a plan.
    """

    def __init__(self, plan: Path | Plan) -> None:
        self._plan = plan if isinstance(plan, Plan) else Plan.read(Path(plan))
        self._faults = {fault.tensor: fault for fault in self._plan.faults}
        self._engine = make_engine(self._plan.base)
        self._counter = itertools.count()
        self._written: Path | None = None

    @property
    def precision(self) -> str | None:
        """That of the engine beneath."""
        return self._engine.precision

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        """Write the model beside itself with the faults in it, and prepare that."""
        self._forget()
        model = onnx.load(str(model_path), load_external_data=False)
        if not spoil(model.graph, self._faults):
            self._engine.prepare(model_path, outputs)
            return
        # Weights outside the model are looked for in its folder.
        path = model_path.with_name(f".{model_path.stem}.{id(self):x}.{next(self._counter)}.onnx")
        onnx.save_model(model, str(path))
        self._written = path
        self._engine.prepare(path, outputs)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run once."""
        return self._engine.run(feeds)

    def close(self) -> None:
        """Close the engine beneath and remove what was written."""
        self._engine.close()
        self._forget()

    def _forget(self) -> None:
        if self._written is not None:
            self._written.unlink(missing_ok=True)
            self._written = None
