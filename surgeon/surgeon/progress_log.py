"""What a search said of where it is: one line while it runs, and all of it when it is interrupted."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from surgeon.report.cells import plain


class ProgressLog:
    """What was last heard of every step.

    Args:
        name: The model.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.monotonic()
        self._steps: dict[str, str] = {}
        self._last = ""

    def take(self, words: str) -> None:
        """Take a phrase such as ``census: 120 of 340 nodes``."""
        step, _, rest = words.partition(":")
        self._last = words
        self._steps[step] = rest.strip()

    @property
    def line(self) -> str:
        """One line of progress, safe to print."""
        passed = time.monotonic() - self._started
        words = f", {self._last}" if self._last else ""
        return f"{plain(self._name)}{plain(words)} ({passed:.0f} s)"

    def tell(self, console: Console, resume: Path | None) -> None:
        """Say what is known, and how to go on.

        Args:
            console: Where to say it.
            resume: The folder in which trials are kept, if there is one.
        """
        for step, words in self._steps.items():
            console.print(f"  {plain(step)}: {plain(words)}" if words else f"  {plain(step)}")
        if resume is not None:
            folder = plain(str(resume))
            console.print(f"finished trials are kept in {folder}: the same command goes on from there")
        elif self._steps:
            console.print("with --resume DIR finished trials are kept, and the same command goes on from there")
