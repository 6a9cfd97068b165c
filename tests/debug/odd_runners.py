"""Runners that end in every way a process can end, and one that hands back what it is given."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def _floods(stream: Any) -> None:
    for _ in range(1000):
        stream.write("x" * 9_999 + "\n")


def _sockets() -> list[int]:
    files = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [int(path.name) for path in files if path.readlink().name.startswith("socket:")]


def _child() -> None:
    child = subprocess.Popen(["sleep", "600"])
    Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


def _eat() -> None:
    kept = []
    while True:
        kept.append(np.ones(8 << 20, np.uint8))
        time.sleep(0.001)


def _note() -> None:
    Path(os.environ["PIDS"]).write_text(str(os.getpid()))
    time.sleep(600)


HOW = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: sys.exit(3),
    "leave": lambda: os._exit(4),
    "hang": lambda: time.sleep(600),
    "hold": lambda: ctypes.PyDLL(None).sleep(600),  # and never lets go of the interpreter
    "child": _child,
    "note": _note,
    "eat": _eat,
    "gulp": lambda: np.ones(64 << 30, np.uint8),
    "bad_alloc": lambda: (sys.stderr.write("terminate called: std::bad_alloc\n"), os.abort()),
    "raise": lambda: 1 / 0,
    "flood": lambda: (_floods(sys.stdout), _floods(sys.stderr)),
    "words": lambda: (sys.stderr.write("one\n\nthe fuse is gone\n"), os.abort()),
    "rubbish": lambda: [os.write(number, b"\xff" * 64) for number in _sockets()],
    "garbled": lambda: [os.write(n, b"\0\0\0\0" + b"\0\0\0\0\0\0\0\2" + b"{]") for n in _sockets()],
    "hangup": lambda: [os.close(number) for number in _sockets()] and time.sleep(600),
    "nothing": lambda: None,
}


class Odd:
    """Does one odd thing at one place, and otherwise computes y = 2 x.

    Args:
        how: One of ``HOW``.
        where: ``start``, ``prepare`` or ``run``.
        spared: Once there is a file of this name, nothing odd happens any more.
    """

    def __init__(self, how: str = "nothing", where: str = "run", spared: str = "") -> None:
        self.how, self.where, self.spared = how, where, spared
        self._do("start")

    def _do(self, where: str) -> None:
        if where == self.where and not (self.spared and Path(self.spared).exists()):
            HOW[self.how]()

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        self._do("prepare")

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self._do("run")
        return {"y": 2 * feeds["x"]}


class Echo:
    """Hands back what it is given; ``observes`` keeps it from being given a copy of a model."""

    observes = True
    precision = "bfloat16"

    def __init__(self, keep: bool = False) -> None:
        self.keep: list[Any] | None = [] if keep else None

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        self.model = model_path

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        if self.keep is not None:
            self.keep.append(dict(feeds))
            return {"first": next(iter(self.keep[0].values()))}
        return dict(feeds)


class Probe:
    """Says where its inputs lie, what it was given to read, and what it can import."""

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None:
        self.model = model_path

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        inodes = []
        for value in feeds.values():
            address = value.__array_interface__["data"][0]
            for line in Path("/proc/self/maps").read_text().splitlines():
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                if start <= address < end:
                    inodes.append(int(line.split()[4]))
        return {
            "inodes": np.array(inodes, np.int64),
            "writable": np.array([value.flags.writeable for value in feeds.values()]),
            "model": np.array([str(self.model)]),
            "files": np.array(sorted(str(p.relative_to(self.model.parent)) for p in self.model.parent.rglob("*"))),
            "links": np.array([p.stat().st_nlink for p in sorted(self.model.parent.rglob("*"))]),
            "threads": np.array(threading.active_count()),
            "path": np.array(sys.path),
        }


class Rubbish:
    """Returns what is no value."""

    def __init__(self, what: str) -> None:
        self.what = what

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None: ...

    def run(self, feeds: Mapping[str, Any]) -> Any:
        class Never:
            def __array__(self, *args: Any) -> Any:
                raise TypeError("lies on another device")

        return {
            "list": [1, 2],
            "object": {"y": Never()},
            "record": {"y": np.zeros(2, [("a", "i4")])},
            "stranger": {"y": np.zeros(2), "z": Never()},
        }[self.what]


class Many:
    """Thousands of small tensors and some large ones."""

    def prepare(self, model_path: Path, outputs: Sequence[str]) -> None: ...

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        found = {f"t{i}": np.full(100, i, np.float32) for i in range(3000)}
        return {**found, **{f"big{i}": np.full(5 << 20, i, np.float32) for i in range(4)}}
