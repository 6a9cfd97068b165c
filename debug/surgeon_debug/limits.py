"""Which limits hold for which tensor: those given for all, and those of a file for some.

The file is TOML or JSON. Its keys are names of tensors or patterns (``*``, ``?``, ``[...]``); an entry sets ``rtol``,
``atol``, ``metric`` (a limit or a list of them) and metrics by name (``max_abs = 0.1``). An entry replaces all that was
given for all tensors. A tensor's own name comes before patterns, of these the first that fits.

    ["logits"]
    atol = 1e-2
    cosine = 0.999
    ["encoder/*"]
    metric = ["rel_l2<0.01", "./mine.py:kl_divergence<0.05"]
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon_debug.compare import Tally
from surgeon_debug.limit import (
    Check,
    Limit,
    check,
    limit_on,
    limit_on_elements,
    parse_limit,
    tolerance_of,
    user_metrics_of,
)  # fmt: skip
from surgeon_debug.metric_names import metric_named
from surgeon_passes.errors import BadOptionError, FileError

__all__ = ["Check", "Limit", "Limits", "check"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of every tensor."""

    everywhere: tuple[Limit, ...] = ()
    """For tensors without an entry of their own."""
    entries: Mapping[str, tuple[Limit, ...]] = dataclasses.field(default_factory=dict)
    """Limits by name or pattern, in the order of the file."""

    @classmethod
    def parse(
        cls,
        texts: Sequence[str] = (),
        per_tensor: str | Path | None = None,
        *,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> Limits:
        """Limits from what was typed.

        Args:
            texts: Limits for all tensors, such as ``rel_l2<0.01``; all of them must hold.
            per_tensor: A TOML or JSON file; see this module.
            rtol: With ``atol``: every element satisfies ``|error| <= atol + rtol * |reference|``.
            atol: See ``rtol``.

        Raises:
            BadOptionError: A limit makes no sense, or the file says what does not exist.
            FileError: The file cannot be read.
        """
        limits = [parse_limit(text) for text in texts]
        if rtol is not None or atol is not None:
            limits.insert(0, limit_on_elements(rtol, atol))
        return cls(tuple(limits), _entries(Path(per_tensor)) if per_tensor is not None else {})

    @property
    def given(self) -> bool:
        """Whether there is any limit for any tensor."""
        return bool(self.everywhere or self.entries)

    def for_tensor(self, name: str) -> list[Limit]:
        """The limits of one tensor; empty if there are none."""
        if name in self.entries:
            return list(self.entries[name])
        fitting = (limits for pattern, limits in self.entries.items() if fnmatch.fnmatchcase(name, pattern))
        return list(next(fitting, self.everywhere))

    def tally(self, name: str, *, compute: str = "") -> Tally:
        """An empty measurement of one tensor that measures all that its limits ask for.

        Args:
            name: The tensor.
            compute: See :class:`surgeon_debug.compare.Tally`.
        """
        limits = self.for_tensor(name)
        rtol, atol = tolerance_of(limits)
        return Tally(rtol=rtol, atol=atol, compute=compute, metrics=user_metrics_of(limits))

    def unmatched(self, names: Iterable[str]) -> list[str]:
        """Names and patterns of the file that fit none of some tensors."""
        there = list(names)
        exact = set(there)
        return [
            pattern
            for pattern in self.entries
            if pattern not in exact and not any(fnmatch.fnmatchcase(name, pattern) for name in there)
        ]

    def require_matched(self, names: Iterable[str]) -> None:
        """Refuse a file that speaks of tensors that are not there.

        Raises:
            BadOptionError: A name or pattern fits none of some tensors.
        """
        there = list(names)
        lost = self.unmatched(there)
        if not lost:
            return
        close = difflib.get_close_matches(lost[0], there, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(there[:5])}"
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise BadOptionError(f"limits are given for '{lost[0]}'{more}, and no compared tensor is called so", hint=hint)


def _entries(path: Path) -> dict[str, tuple[Limit, ...]]:
    document = _read(path)
    if not isinstance(document, Mapping) or not document:
        raise BadOptionError("holds no limits", where=str(path), hint="write tensor names with limits below them")
    return {name: _entry(name, entry, path) for name, entry in document.items()}


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise BadOptionError("is not text", where=str(path), hint="write TOML or JSON") from error
    is_json = path.suffix.lower() == ".json" or (path.suffix.lower() != ".toml" and text.lstrip().startswith("{"))
    try:
        return json.loads(text, object_pairs_hook=_unique) if is_json else tomllib.loads(text)
    except ValueError as error:  # both kinds of syntax errors are
        kind = "JSON" if is_json else "TOML"
        raise BadOptionError(f"is not {kind}: {error}", where=str(path)) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{twice}' stands there twice")
    return found


def _entry(name: str, entry: Any, path: Path) -> tuple[Limit, ...]:
    where = f"{path}, '{name}'"
    if not isinstance(entry, Mapping) or not entry:
        raise BadOptionError("is no table of limits", where=where, hint="write rtol, atol, metric or a metric's name")
    limits: list[Limit] = []
    tolerance: dict[str, float] = {}
    try:
        for key, value in entry.items():
            if key in ("rtol", "atol"):
                tolerance[key] = _number(key, value)
            elif key == "metric":
                texts = [value] if isinstance(value, str) else value
                if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                    raise BadOptionError(f"metric={value!r} is no limit", hint='write metric = ["rel_l2<0.01"]')
                limits += [parse_limit(text) for text in texts]
            else:
                # TOML reads ulp.max = 4 as a table.
                inner = {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
                limits += [limit_on(metric_named(k), _number(k, v)) for k, v in inner.items()]
        if tolerance:
            limits.insert(0, limit_on_elements(tolerance.get("rtol"), tolerance.get("atol")))
    except BadOptionError as error:
        raise BadOptionError(error.what, where=where, hint=error.hint) from error
    return tuple(limits)


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadOptionError(f"{key}={value!r} is not a number", hint=f"write {key} = 0.01")
    return float(value)
