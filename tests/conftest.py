"""Counts of the runs over the public models, printed at the end."""

from __future__ import annotations

import collections
import os

import hypothesis
import pytest

from tests.models import COUNTS

# The same examples on every run of the checks before a merge; new ones wherever somebody develops.
hypothesis.settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


@pytest.fixture
def counts(request: pytest.FixtureRequest) -> collections.Counter[str]:
    """The counter of this test's module."""
    return request.config.stash.setdefault(COUNTS, collections.defaultdict(collections.Counter))[
        request.module.__name__
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> object:
    report = yield
    if report.when == "call" and COUNTS in item.config.stash:
        # Worker processes of pytest-xdist have no terminal: what they counted travels with their reports.
        report.user_properties.append(("counts", {m: dict(c) for m, c in item.config.stash[COUNTS].items()}))
        item.config.stash[COUNTS].clear()
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    total: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "counts":
                    for module, counter in value.items():
                        total[module].update(counter)
    for module, counter in total.items():
        terminalreporter.write_line(f"{module}: " + ", ".join(f"{n} {what}" for what, n in sorted(counter.items())))
