"""Name the fusion that makes an engine of TensorRT wrong, and what breaks it."""

from __future__ import annotations

from collections.abc import Callable

from surgeon_debug.find.engine_builds import Builder
from surgeon_debug.find.engine_ground import EngineGround, Question, engine_ground, graph_is_wrong
from surgeon_debug.find.engine_trials import HowToSearch
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.fusion_finding import FusionFinding
from surgeon_debug.find.fusion_search import FusionSearch
from surgeon_debug.find.tactic import BUILDS
from surgeon_debug.find.tensorrt_builds import TensorrtBuilder


def find_fusion(
    question: Question,
    *,
    how: HowToSearch | None = None,
    builder: Callable[[TensorrtBuilder], Builder] | None = None,
    progress: Callable[[str], None] | None = None,
) -> FusionFinding:
    """Find the fused layers without which an engine is right.

    Where the compiler has knobs (TensorRT 11.1 and later), the smallest set of them that heals is found first; on any
    version the smallest set of tensors that heal when they are made outputs. A layer that is right with another tactic
    is not accused.

    Args:
        question: The model, its inputs, and who is believed and suspected.
        how: What the search may use.
        builder: Puts another builder in the place of TensorRT's.
        progress: Called with a phrase about where the search is.

    Raises:
        BadModelError: The model cannot be used.
        BadOptionError: A runner or option does not exist, or inputs do not fit.
        EngineError: The reference cannot run the model.
        FileError: A file cannot be read or written.
    """
    how = how or HowToSearch()
    folder = None if how.resume is None else how.resume / BUILDS
    with engine_ground(question, folder=folder, builder=builder) as ground:
        if ground.graph.signature is not None:
            return _graph_finding(ground)
        search = FusionSearch(ground.spec, ground.model, how, explain=ground.explain, progress=progress)
        return search.run(ground.label, ground.labels, ground.notes)


def _graph_finding(ground: EngineGround) -> FusionFinding:
    reason, advice = graph_is_wrong(ground.graph)
    return FusionFinding(
        outcome=FindOutcome.NOTHING,
        model=ground.label,
        reference=ground.labels[0],
        target=ground.labels[1],
        version="",
        layers=0,
        samples=len(ground.spec.feeds),
        signature=ground.graph.signature,
        failure=ground.graph.words,
        culprits=(),
        knobs=(),
        regrouped=(),
        outputs=(),
        before_ms=None,
        after_ms=None,
        reason=reason,
        advice=advice,
        command="",
        steps=(),
        notes=ground.notes,
    )
