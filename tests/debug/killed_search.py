"""A search with real engines that is meant to be killed: ``python -m tests.debug.killed_search FOLDER LANES``."""

from __future__ import annotations

import json
import sys
from concurrent.futures import Future
from pathlib import Path

from surgeon_debug.find.oracle import TrialRecord
from surgeon_debug.find.pool import LocalPool
from surgeon_debug.find.remember import Remembering
from surgeon_debug.journal import Journal
from surgeon_debug.search.bisect import PrefixBisect
from surgeon_debug.search.drive import drive
from surgeon_debug.search.trial import Outcome, Trial
from tests.debug.masked_engine import SIZE, EngineSpec


def outcome_of(made: Future[TrialRecord]) -> Future[Outcome]:
    found: Future[Outcome] = Future()
    found.set_running_or_notify_cancel()  # a search that is done cancels what it does not need any more

    def take(done: Future[TrialRecord]) -> None:
        error = done.exception()
        if error is None:
            found.set_result(done.result().outcome(None)[0])
        else:
            found.set_exception(error)

    made.add_done_callback(take)
    return found


def main() -> None:
    folder, lanes = Path(sys.argv[1]), int(sys.argv[2])
    spec = EngineSpec(folder)
    with Journal(folder) as journal:
        remember = Remembering(spec.address(), journal)
        with LocalPool(spec, lanes, remember) as pool:
            search = PrefixBisect(range(SIZE))
            answer = drive(search, lambda t: outcome_of(pool.submit(t.elements, t.attempt)), lanes=lanes)
            culprits = [sorted(culprit) for culprit in answer.culprits]
            every, guilty = frozenset(range(SIZE)), frozenset().union(*answer.culprits)
            checks = [Trial(guilty), Trial(every - guilty), Trial(every), Trial(frozenset())]
            checks += [Trial(guilty | {other}) for other in range(4)]
            records = [pool.submit(trial.elements, trial.attempt).result() for trial in checks]
        outcomes = [record.outcome(None)[0].value for record in records]
        said = {"culprits": culprits, "certain": answer.certain, "checks": outcomes}
        (folder / "answer.json").write_text(json.dumps({**said, "made": remember.made, "ended": journal.ended}))


if __name__ == "__main__":
    main()
