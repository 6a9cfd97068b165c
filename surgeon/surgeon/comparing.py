"""What ``surgeon compare`` does between reading its options and printing its result."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surgeon import options
from surgeon.console import talk
from surgeon.sampled_request import SampledRequest
from surgeon.targets import check_targets
from surgeon_debug.annotate import NodeNote, annotate
from surgeon_debug.comparison import Comparison, TensorResult
from surgeon_debug.layers import compare_models
from surgeon_debug.pair import LayerOptions
from surgeon_debug.result_file import save_result
from surgeon_debug.runners.contract import Engine
from surgeon_passes.errors import BadOptionError
from surgeon_passes.spec import parse_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request(SampledRequest):
    """The options of ``surgeon compare``, as typed; see its help."""

    other: Path | None
    reference: str
    target: str | None
    layers: bool
    isolate: bool
    memory: str | None
    whole: bool | None
    iterations: int
    inner: int
    pieces: bool
    against: Path | None
    save_reference: Path | None
    annotate: Path | None

    @property
    def layer_options(self) -> LayerOptions | bool:
        """How layers are compared; False if they are not."""
        if not self.layers:
            return False
        memory = parse_size(self.memory) if self.memory else None
        return LayerOptions(memory, self.isolate, self.whole, self.iterations, self.inner)


def perform(request: Request, engines: Sequence[Engine]) -> Comparison:
    """Compare, and keep the reference's values if that was asked for.

    Args:
        request: What was typed.
        engines: The reference and the target.

    Raises:
        SurgeonError: A model, a runner or an option does not do, or a file must not or cannot be written.
    """
    check(request)
    with talk().status(f"comparing {request.model.name}") as status:
        clock = _Clock(request.model.name)
        return compare_models(
            request.model,
            request.other,
            target=engines[1],
            reference=engines[0],
            layers=request.layer_options,
            progress=lambda count, total: status.update(clock.words(count, total)),
            **shared_arguments(request),
        )


def shared_arguments(request: Request) -> dict[str, Any]:
    """The arguments that do not depend on how layers are compared."""
    return {
        "feeds": request.load_feeds(),
        "samples": request.samples,
        "seed": request.seed,
        "dims": options.parse_dims(request.dims),
        "limits": request.limits(),
        "postprocess": request.load_postprocess(),
        "against": request.against,
        "save_reference": request.save_reference,
        "allow_external": request.allow_external,
    }


def write_files(done: Comparison, request: Request) -> None:
    """Write the result and the annotated model, if they were asked for.

    It comes after printing: what took an hour to find is not lost for want of space.

    Raises:
        SurgeonError: A file cannot be written.
    """
    if request.save is not None:
        save_result(done.to_json(), request.save)
    if request.annotate is not None:
        _annotate(done, request)


def check(request: Request) -> None:
    """Refuse what would be found out after the work, or never.

    Raises:
        SurgeonError: Options do not fit each other, or a file must not or cannot be written.
    """
    if not request.layers:
        for option, asked in (
            ("--annotate", request.annotate is not None),
            ("--memory", request.memory is not None),
            ("--no-isolate", not request.isolate),
            ("--whole", request.whole is not None),
            ("--pieces", request.pieces),
        ):
            if asked:
                raise BadOptionError(f"{option} means nothing without layers", hint="add --layers")
    code = request.postprocess.rpartition(":")[0] if request.postprocess else ""
    check_targets(
        {
            "--save": (request.save, b"{"),
            "--save-reference": (request.save_reference, b"PK"),
            "--annotate": (request.annotate, b""),
        },
        [
            request.model,
            request.other,
            request.feeds,
            request.against,
            request.per_tensor,
            Path(code) if code else None,
        ],
    )


class _Clock:
    """Tells how far a comparison is and when it will be done."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.monotonic()

    def words(self, done: int, total: int) -> str:
        """One line of progress."""
        passed = time.monotonic() - self._started
        left = passed * (total - done) / done if done else 0.0
        return f"comparing {self._name}: {done} of {total} layers, about {left:.0f} s left"


def _annotate(done: Comparison, request: Request) -> None:
    """Write a copy of the target's model with each layer's findings at its node."""
    model = request.other or request.model
    summary = {"verdict": done.verdict, "cause": done.cause.value, "reference": done.reference, "target": done.target}
    notes = [NodeNote(result.tensor, _texts(result), result.node) for result in done.layers]
    assert request.annotate is not None
    annotate(model, notes, request.annotate, summary=summary, allow_external=request.allow_external)


def _texts(result: TensorResult) -> dict[str, str]:
    numbers = {
        "introduced": result.introduced,
        "inherited": result.inherited,
        "amplification": result.amplification,
        "floor": result.floor,
        "ratio": result.ratio,
    }
    texts = {name: f"{value:.3g}" for name, value in numbers.items() if value is not None}
    return {"verdict": result.verdict.value, "reason": result.judgement.reason, **texts}
