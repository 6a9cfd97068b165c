"""Reads what TensorRT tells about tactics in the verbose log of a build; nothing else lists them.

The log's grammar is nobody's interface and there are two of it: ops that have a key in an editable timing cache print
one table each, classic ones print a block for each runner, without a key. What is not understood is passed over; the
log itself is to be kept by whoever reads it.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from surgeon_passes.errors import FileError


class Dialect(enum.Enum):
    """Which grammar a table was read in."""

    EDITABLE = "editable"
    """``Autotuning op``: one table an op; it has a cache key if the cache was editable."""
    CLASSIC = "classic"
    """``Timing Runner``: one block an op and runner, without a key."""


class TacticRow(NamedTuple):
    """One tactic that was timed."""

    kernel: str
    """The kernel's name; it does not identify a tactic, several have the same. Empty if not said."""
    hash: str
    """What identifies it: ``0x`` and lower-case hexadecimal digits without leading zeros."""
    milliseconds: float | None
    """What it took; None if it was not timed, or said nothing sane."""
    tunable: str = ""
    """Parameters, as text."""
    note: str = ""
    """Why it was not timed; empty if it was."""


@dataclasses.dataclass(frozen=True)
class TacticTable:
    """What was tried for one op."""

    op: str
    """The op, as the log calls it; close to an ONNX name, but not equal to one."""
    key: str
    """Its key in an editable timing cache, ``0x`` and 32 hexadecimal digits; empty if it has none."""
    nodes: tuple[str, ...]
    """The ONNX nodes that it computes; empty if not said."""
    rows: tuple[TacticRow, ...]
    """Its tactics in the order of the log, fastest first in the editable dialect."""
    chosen: str
    """The hash of the tactic that was chosen; empty if it was not said, or another runner's was."""
    dialect: Dialect
    runner: str = ""
    """The kind of implementation, ``CaskConvolution`` say; empty in the editable dialect."""
    cached: bool = False
    """Whether the log says that the choice was written to the cache."""

    def row(self, hash_: str) -> TacticRow | None:
        """The row of a tactic; None if it was not tried."""
        return next((row for row in self.rows if row.hash == hash_), None)

    def to_json(self) -> dict[str, Any]:
        """The table as JSON; rows are lists of kernel, hash, milliseconds, tunable parameters and note."""
        found = dataclasses.asdict(self)
        found["dialect"], found["nodes"] = self.dialect.value, list(self.nodes)
        found["rows"] = [list(row) for row in self.rows]
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> TacticTable:
        """The table that :meth:`to_json` wrote.

        Raises:
            KeyError: A field is missing.
            TypeError: A field is unknown, or is no sequence where it should be one.
            ValueError: A dialect is unknown.
        """
        values = dict(found)
        values["dialect"] = Dialect(values["dialect"])
        values["nodes"] = tuple(values["nodes"])
        values["rows"] = tuple(TacticRow(*row) for row in values["rows"])
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class TacticLog:
    """All that a log tells about tactics."""

    tables: tuple[TacticTable, ...]
    """In the order of the log; none is a finding of its own: the log is cut short, or nothing was timed."""
    fusions: tuple[str, ...]
    """Lines about fusions, without what stands before them."""
    lines: int
    """Lines read."""

    @property
    def dialects(self) -> tuple[Dialect, ...]:
        """The dialects of its tables, each once."""
        return tuple(dict.fromkeys(table.dialect for table in self.tables))

    @property
    def unfinished(self) -> tuple[TacticTable, ...]:
        """Tables with a key that tell no choice: the log ends in them, or lines are missing."""
        return tuple(table for table in self.tables if table.key and not table.chosen)


def normal_hash(text: str | int) -> str:
    """A tactic's hash as we write it: ``0x`` and lower-case digits without leading zeros.

    Raises:
        ValueError: It is no hexadecimal number.
    """
    return hex(text if isinstance(text, int) else int(text, 16))


def onnx_nodes(metadata: str) -> tuple[str, ...]:
    """Names of the ONNX nodes in pieces such as ``[ONNX Layer: name]``, each once, in order.

    Pieces are joined by U+001E (fusion), U+001F (Myelin), or by nothing; a name may hold brackets.
    """
    pieces = metadata.split("[ONNX Layer: ")[1:]
    names = (piece.strip("\x1e\x1f \t\r\n").removesuffix(":").removesuffix("]") for piece in pieces)
    return tuple(dict.fromkeys(name for name in names if name))


def read_tactic_log(path: Path) -> TacticLog:
    """Read a log from a file; bytes that are no text do no harm.

    Raises:
        FileError: It cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            return parse_tactic_log(file)
    except OSError as error:
        raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error


def parse_tactic_log(lines: Iterable[str] | str) -> TacticLog:
    """Read a log.

    Args:
        lines: Its lines, with or without what a logger puts before them; or all of it as one text.
    """
    # Not splitlines: the separators of ONNX names are line ends to it.
    reader = _Reader()
    for line in lines.split("\n") if isinstance(lines, str) else lines:
        reader.take(line)
    return reader.finish()


_TELLING = re.compile(
    r"Autotuning op |The selected tactic is|Writing the best tactic|Timing Runner: |Tactic: 0x|Chose Runner Type: "
    r"|Fusing |Skipping "
)
_KEY = re.compile(r"\(key: (0x[0-9a-fA-F]+)\)")
_HASH = re.compile(r"0x[0-9a-fA-F]+")
_CHOICE = re.compile(r":\s*(0x[0-9a-fA-F]+)")
_CLASSIC = re.compile(r"(?:Tactic Name: (\S+) )?Tactic: (0x[0-9a-fA-F]+)(?:.*? Time: (\S+))?")
_RUNNER = re.compile(r"Timing Runner: (.+) \((\w+)(?:\[0x[0-9a-fA-F]+\])?\)\s*$")
_CHOSE = re.compile(r"Chose Runner Type: (\w+) Tactic: (0x[0-9a-fA-F]+)")
_PLAIN = re.compile(r"0x(?:0|[1-9a-f][0-9a-f]*)").fullmatch  # written as we write it already
_PREFIX = re.compile(r"^\s*(?:\[[^\]]*\]\s*)*(?:\(foreignNode\)\s*)?")


@dataclasses.dataclass
class _Open:
    """A table under way."""

    op: str
    key: str = ""
    nodes: tuple[str, ...] = ()
    runner: str = ""
    dialect: Dialect = Dialect.EDITABLE
    rows: list[TacticRow] = dataclasses.field(default_factory=list)
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    chosen: str = ""
    cached: bool = False

    def close(self) -> TacticTable:
        rows = tuple(self.rows)
        return TacticTable(self.op, self.key, self.nodes, rows, self.chosen, self.dialect, self.runner, self.cached)


class _Reader:
    """Takes lines one by one."""

    def __init__(self) -> None:
        self._tables: list[_Open] = []
        self._fusions: list[str] = []
        self._lines = 0
        self._editable: _Open | None = None
        self._classic: _Open | None = None
        self._kernels: dict[str, str] = {}
        self._undecided: list[_Open] = []  # classic blocks since the last choice among runners

    def take(self, line: str) -> None:
        self._lines += 1
        if self._editable is not None:
            cells = line.split(", ")
            if len(cells) > 5 and self._row(self._editable, cells):
                return
        telling = _TELLING.search(line)
        if telling is not None:
            self._tell(line, telling[0])

    def finish(self) -> TacticLog:
        return TacticLog(tuple(table.close() for table in self._tables), tuple(self._fusions), self._lines)

    def _row(self, table: _Open, cells: list[str]) -> bool:
        """Take a row of a table: id, cost, ratio, correlation, kernel, hash, parameters, and an empty cell."""
        place = 5
        while not cells[place].startswith("0x"):  # a kernel's name that holds a comma, or a line that is no row
            place += 1
            if place >= len(cells):
                return False
        text = cells[place].rstrip(",\r\n ")
        hash_ = text
        if _PLAIN(text) is None:
            try:
                hash_ = normal_hash(text)
            except ValueError:
                return False
        kernel = cells[4] if place == 5 else ", ".join(cells[4:place])
        kernel = self._kernels.setdefault(kernel, kernel)  # few kernels, many rows
        tunable = ", ".join(cells[place + 1 :]).strip(", \r\n") if len(cells) > place + 1 else ""
        table.rows.append(TacticRow(kernel, hash_, _time(cells[1]), tunable))
        return True

    def _tell(self, line: str, word: str) -> None:
        if word == "Autotuning op ":
            self._begin_op(line.partition(word)[2])
        elif word == "The selected tactic is":
            choice = _CHOICE.search(line)
            if self._editable is not None and choice:
                self._editable.chosen = normal_hash(choice[1])
        elif word == "Writing the best tactic":
            written = _HASH.search(line)
            if self._editable is not None and written:
                self._editable.cached = True
                self._editable.chosen = self._editable.chosen or normal_hash(written[0])
        elif word == "Timing Runner: ":
            self._begin_runner(line)
        elif word == "Chose Runner Type: ":
            self._choose(line)
        elif word == "Fusing ":
            self._fusions.append(_PREFIX.sub("", line).strip())
        elif word == "Tactic: 0x":
            self._classic_row(line)

    def _begin_op(self, rest: str) -> None:
        found = _KEY.search(rest)
        if found:
            op, key, metadata = rest[: found.start()], found[1].lower(), rest[found.end() :]
        else:
            op, piece, metadata = rest.partition("[ONNX Layer: ")
            op, key, metadata = op.strip().removesuffix(":"), "", piece + metadata
        self._editable = _Open(op.strip(), key, onnx_nodes(metadata))
        self._tables.append(self._editable)

    def _begin_runner(self, line: str) -> None:
        self._editable = None
        found = _RUNNER.search(line)
        if found is None:
            self._classic = None
            return
        self._classic = _Open(found[1], runner=found[2], dialect=Dialect.CLASSIC)
        self._tables.append(self._classic)
        self._undecided.append(self._classic)

    def _classic_row(self, line: str) -> None:
        block = self._classic
        found = _CLASSIC.search(line)
        if block is None or found is None or "Fastest Tactic:" in line:
            return
        name, hash_, time = found[1] or "", normal_hash(found[2]), found[3]
        if "skipped" in line or "Skipping" in line:
            note = _PREFIX.sub("", line[found.start() :]).strip().partition(found[2])[2].strip()
            block.rows.append(TacticRow(name or block.names.get(hash_, ""), hash_, None, note=note or "skipped"))
        elif time is None:
            block.names[hash_] = name  # older versions say the time on the next line, without the name
        else:
            block.rows.append(TacticRow(name or block.names.get(hash_, ""), hash_, _time(time)))

    def _choose(self, line: str) -> None:
        found = _CHOSE.search(line)
        if found is not None:
            hash_ = normal_hash(found[2])
            kin = [block for block in self._undecided if block.runner == found[1]]
            # Without formats in the line the block is told by its tactics.
            fitting = [block for block in kin if any(row.hash == hash_ for row in block.rows)] or kin
            if fitting:
                fitting[-1].chosen = hash_
        self._undecided.clear()
        self._classic = None


def _time(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
