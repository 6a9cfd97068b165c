"""Messages, and open files with them, over a Unix socket between a parent and its worker.

A message is a JSON document behind its length and the number of files that come with it. Nothing is pickled: the two
ends may be different versions of Python, and what a broken engine leaves behind must not be executed.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

_HEAD = struct.Struct("!IQ")
_BATCH = 200  # the kernel takes 253 files with one piece of data
_MAX_BODY = 1 << 32
_MAX_FILES = 1 << 20

Wait = Callable[[], None]
"""Called again and again while the other end keeps one waiting; raises to give up."""


def _patience() -> None:
    """Wait for ever."""


class Channel:
    """One end of the socket.

    Args:
        sock: The socket; it is closed with the channel.
        tick: Seconds between two calls of the function that decides whether to go on waiting; None to wait for ever.
    """

    def __init__(self, sock: socket.socket, *, tick: float | None = None) -> None:
        self._socket = sock
        sock.settimeout(tick)

    def send(self, message: dict[str, Any], files: Sequence[int] = (), *, wait: Wait = _patience) -> None:
        """Send a message and open files; the files stay open here.

        Raises:
            OSError: The other end is gone.
        """
        body = json.dumps(message).encode("ascii")
        self._write(_HEAD.pack(len(files), len(body)), wait)
        for start in range(0, len(files), _BATCH):
            self._write_files(files[start : start + _BATCH], wait)
        self._write(body, wait)

    def receive(self, *, wait: Wait = _patience) -> tuple[dict[str, Any], list[int]]:
        """The next message and its files, which belong to the caller.

        Raises:
            EOFError: The other end is gone.
            OSError: The connection broke, or there are too many open files here.
            ValueError: What came is no message.
        """
        count, length = _HEAD.unpack(self._read(_HEAD.size, wait))
        if length > _MAX_BODY or count > _MAX_FILES:
            raise ValueError("no message begins like this")
        files: list[int] = []
        try:
            while len(files) < count:
                files += self._read_files(wait)
            message = json.loads(self._read(length, wait))
            if not isinstance(message, dict):
                raise ValueError("a message is a dictionary")
        except BaseException:
            close_all(files)
            raise
        return message, files

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _write(self, data: bytes, wait: Wait) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except TimeoutError:
                wait()

    def _write_files(self, files: Sequence[int], wait: Wait) -> None:
        while True:
            try:
                socket.send_fds(self._socket, [b"F"], list(files))
                return
            except TimeoutError:
                wait()
            except OSError as error:
                # As many files may be on their way as one may have open; the other end is about to take some.
                if error.errno != errno.ETOOMANYREFS:
                    raise
                wait()

    def _read(self, size: int, wait: Wait) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self._socket.recv(min(size - len(data), 1 << 20))
            except TimeoutError:
                wait()
                continue
            if not piece:
                raise EOFError("the other end hung up")
            data += piece
        return bytes(data)

    def _read_files(self, wait: Wait) -> list[int]:
        size = array.array("i").itemsize
        while True:
            try:
                data, sides, flags, _ = self._socket.recvmsg(
                    1, socket.CMSG_SPACE(_BATCH * size), getattr(socket, "MSG_CMSG_CLOEXEC", 0)
                )
            except TimeoutError:
                wait()
                continue
            files = array.array("i")
            for level, kind, content in sides:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    files.frombytes(content[: len(content) - len(content) % size])
            if not data or not files or flags & socket.MSG_CTRUNC:
                close_all(files)
                if not data:
                    raise EOFError("the other end hung up")
                raise OSError(errno.EMFILE, "too many open files")
            return list(files)


def close_all(files: Sequence[int]) -> None:
    """Close files by number, those already closed included."""
    for file in files:
        with contextlib.suppress(OSError):
            os.close(file)
