"""Do nothing twice: what has been found out is looked up, what is being found out is waited for.

Records are kept in a journal under the content of the question, so they outlive the process that found them.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from surgeon_debug.find.oracle import TrialRecord
from surgeon_debug.journal import Journal
from surgeon_passes.errors import FileError

WARY = 2
"""How often a trial may be under way when the process ends, before it is made in a process of its own."""

ENOUGH = 4
"""How often, before it is not made any more."""


class Remembering:
    """Trials and steps of one question, remembered in a journal; any thread may use it.

    Args:
        address: A digest of all that outcomes depend on besides what is asked; see
            :meth:`surgeon_debug.find.oracle.OracleSpec.address`.
        journal: Where records are kept. It may hold those of other addresses too, and stays open.
    """

    def __init__(self, address: str, journal: Journal) -> None:
        self._address = address
        self._journal = journal
        self._lock = threading.Lock()
        self._running: dict[str, Future[dict[str, Any]]] = {}
        self._made = self._recalled = 0

    @property
    def made(self) -> int:
        """Trials and steps made by this object."""
        return self._made

    @property
    def recalled(self) -> int:
        """Trials and steps that were known, or under way already, when they were asked for."""
        return self._recalled

    def recall(self, elements: Iterable[int], attempt: int = 0) -> TrialRecord | None:
        """The record of a trial that has ended; None if it has not, or if it is no record of this version."""
        found = self._journal.known(self._trial_key(elements, attempt))
        record = None if found is None else _record(found)
        if record is not None:
            with self._lock:
                self._recalled += 1
        return record

    def trial(
        self,
        elements: frozenset[int],
        attempt: int,
        evaluate: Callable[[], TrialRecord],
        wary: Callable[[], TrialRecord] | None = None,
    ) -> TrialRecord:
        """Make a trial, or look its record up.

        A trial that was under way each time the process ended may be what ends it. From the third time on it is
        made where it can do no harm, and after the fourth it is unresolved.

        Args:
            elements: What the suspect computes.
            attempt: Counts repetitions of the same question.
            evaluate: Makes the trial.
            wary: Makes it where it can end nothing else; None if ``evaluate`` does.

        Raises:
            SurgeonError: What ``evaluate`` raises; the trial is then not remembered.
            FileError: The journal cannot be written.
        """
        key = self._trial_key(elements, attempt)
        begun = self._journal.begun(key)

        def make() -> dict[str, Any]:
            if begun >= ENOUGH and wary is not None:
                return TrialRecord(None, unresolved=f"it was under way {begun} times when the search ended").to_json()
            return (wary if wary is not None and begun >= WARY else evaluate)().to_json()

        words = f"trial of {len(elements)} elements" + (f", attempt {attempt}" if attempt else "")
        found, _ = self._once(key, words, make, valid=lambda known: _record(known) is not None)
        record = _record(found)
        assert record is not None
        return record

    def remember(
        self, key_parts: Sequence[object], make: Callable[[], Mapping[str, Any]]
    ) -> tuple[dict[str, Any], bool]:
        """Make a step that is not a trial, or look its result up.

        Args:
            key_parts: What the result depends on besides the address; told apart by ``repr``. The first is its name.
            make: Makes the step; what it returns must be JSON.

        Returns:
            The result as JSON gives it back, and whether it was known.

        Raises:
            SurgeonError: What ``make`` raises; the step is then not remembered.
            FileError: The journal cannot be written.
        """
        key = _key("step", self._address, *map(repr, key_parts))
        return self._once(key, str(key_parts[0]) if key_parts else "step", make)

    def _trial_key(self, elements: Iterable[int], attempt: int) -> str:
        return _key("trial", self._address, array.array("q", sorted(elements)).tobytes(), str(attempt))

    def _once(
        self,
        key: str,
        words: str,
        make: Callable[[], Mapping[str, Any]],
        valid: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> tuple[dict[str, Any], bool]:
        with self._lock:
            running = self._running.get(key)
            if running is None:
                known = self._journal.known(key)
                if known is not None and valid(known):
                    self._recalled += 1
                    return known, True
                own = self._running[key] = Future()
            else:
                self._recalled += 1
        if running is not None:
            return running.result(), True
        try:
            found = self._make(key, words, make)
        except BaseException as error:
            own.set_exception(error)
            raise
        else:
            own.set_result(found)
            return found, False
        finally:
            with self._lock:
                del self._running[key]

    def _make(self, key: str, words: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        self._journal.begin(key, words)
        try:
            found = make()
        except BaseException:
            with contextlib.suppress(FileError):  # the other error is the one to hear of
                self._journal.let_go(key)
            raise
        self._journal.end(key, found)
        with self._lock:
            self._made += 1
        kept = self._journal.known(key)
        assert kept is not None
        return kept


def _record(found: Mapping[str, Any]) -> TrialRecord | None:
    try:
        return TrialRecord.from_json(found)
    except (KeyError, TypeError, ValueError):
        return None


def _key(*parts: str | bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()
