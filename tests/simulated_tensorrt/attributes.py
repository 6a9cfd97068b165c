"""Attributes that several classes of the library have in common: each is only read back."""

from __future__ import annotations

from typing import Any


class Recorded:
    """Has an error recorder."""

    _recorder: Any

    @property
    def error_recorder(self) -> Any:
        return self._recorder

    @error_recorder.setter
    def error_recorder(self, value: Any) -> None:
        self._recorder = value


class Named:
    """Has a name."""

    _name: str

    @property
    def name(self) -> str:
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        self._name = value


class Flagged:
    """Has flags, each a bit."""

    _flags: int

    def set_flag(self, flag: Any) -> None:
        self._flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags >> int(flag) & 1)

    @property
    def flags(self) -> int:
        return self._flags

    @flags.setter
    def flags(self, value: int) -> None:
        self._flags = value


class Rooted(Recorded):
    """Begins a use of the library: was made with a logger, has threads, and no accelerator of the old kind."""

    _own_logger: Any
    _threads: int

    @property
    def logger(self) -> Any:
        return self._own_logger

    @property
    def max_threads(self) -> int:
        return self._threads

    @max_threads.setter
    def max_threads(self, value: int) -> None:
        self._threads = value

    @property
    def num_DLA_cores(self) -> int:
        return 0
