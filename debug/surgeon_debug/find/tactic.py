"""Name the tactic that makes an engine of TensorRT wrong, and make a timing cache that avoids it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from surgeon_debug.find.engine_builds import Builder
from surgeon_debug.find.engine_ground import EngineGround, Question, engine_ground, graph_is_wrong
from surgeon_debug.find.engine_trials import HowToSearch
from surgeon_debug.find.finding import FindOutcome
from surgeon_debug.find.tactic_finding import TacticFinding
from surgeon_debug.find.tactic_pins import FreeChoice
from surgeon_debug.find.tactic_search import KnownBuild, TacticSearch
from surgeon_debug.find.tensorrt_builds import TensorrtBuilder, read_known

BUILDS = "builds"
"""The folder, in that of ``resume``, where timing caches of builds are kept."""


def find_tactic(
    question: Question,
    *,
    good: str | Path | None = None,
    bad: str | Path | None = None,
    every: bool = False,
    output: str | Path | None = None,
    how: HowToSearch | None = None,
    builder: Callable[[TensorrtBuilder], Builder] | None = None,
    progress: Callable[[str], None] | None = None,
) -> TacticFinding:
    """Find the tactics that make an engine fail.

    The engine is built with an editable timing cache, and built again from it: only if that replays can tactics be told
    apart. With a good build the M keys whose tactics differ are searched, which takes log2 M + 2 builds; without one,
    build t of a census pins the t-th tactic of every key, until a build is right: with K tactics of a key at most K + 1
    builds, the first and its replay among them. If none is right, and all have the same error, it ends there: it is not
    a tactic (or several at once). If the errors differ up to 16 other assignments are tried, for tactics that mask
    each other; if there are no numbers, up to 3. A culprit of two tactics takes log2 M + 1 builds more, a tactic with
    which nothing can be built log2 M + 1 in the census, where four such are looked for.

    Args:
        question: The model, its inputs, and who is believed and suspected.
        good: A timing cache or the folder of a record of a build that is right.
        bad: The timing cache of the build that fails; None for what the builder chooses now.
        every: Try every tactic of every key, whatever is found before.
        output: Where to write a timing cache that avoids what is found.
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
    known = [None if given is None else _known(Path(given), record=given is good) for given in (good, bad)]
    folder = None if how.resume is None else how.resume / BUILDS
    with engine_ground(question, folder=folder, builder=builder) as ground:
        if ground.graph.signature is not None:
            return _graph_finding(ground)
        search = TacticSearch(
            ground.spec,
            how,
            good=known[0],
            bad=known[1],
            every=every,
            output=None if output is None else Path(output),
            explain=ground.explain,
            progress=progress,
        )
        return search.run(ground.label, ground.labels, ground.notes)


def _known(path: Path, *, record: bool) -> KnownBuild:
    """A build by its record or its timing cache; of one that is to be built again only the cache counts."""
    found, cache, digest = read_known(path)
    return KnownBuild(FreeChoice(cache, digest), found if record or not cache else None)


def _graph_finding(ground: EngineGround) -> TacticFinding:
    reason, advice = graph_is_wrong(ground.graph)
    return TacticFinding(
        outcome=FindOutcome.NOTHING,
        model=ground.label,
        reference=ground.labels[0],
        target=ground.labels[1],
        version="",
        keys=0,
        differing=0,
        samples=len(ground.spec.feeds),
        signature=ground.graph.signature,
        failure=ground.graph.words,
        culprits=(),
        coverage=None,
        reason=reason,
        advice=advice,
        moved=(),
        unusable=(),
        cache="",
        command="",
        steps=(),
        notes=ground.notes,
    )
