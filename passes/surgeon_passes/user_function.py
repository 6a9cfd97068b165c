"""A function from a file that the user wrote: find it, call it, and say where in the file it failed."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from surgeon_passes.errors import BadOptionError, SurgeonError


class UserFunction:
    """A function in a Python file.

    Args:
        path: The file.
        name: The function.

    Raises:
        BadOptionError: There is no such file, it is not Python, or it has no such function.
        SurgeonError: The file fails while it is imported.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        if not path.is_file():
            raise BadOptionError("there is no such file", where=str(path), hint="give the path of a Python file")
        module = self._import()
        found = getattr(module, name, None)
        if not callable(found):
            own = [n for n, item in vars(module).items() if isinstance(item, types.FunctionType)]
            close = difflib.get_close_matches(name, own, 1) or own[:5]
            hint = f"it has {', '.join(close)}" if close else "it has no function"
            raise BadOptionError(f"has no function '{name}'", where=str(path), hint=hint)
        self._function: Callable[..., Any] = found

    def _import(self) -> types.ModuleType:
        """Import the file under a name of its own, so that two files of one name do not get in each other's way."""
        path = self.path.resolve()
        name = f"surgeon_step_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise BadOptionError("is not a Python file", where=str(self.path), hint="its name must end in .py")
        module = importlib.util.module_from_spec(spec)
        # Classes of the file find their module by its name, so it is there while the function may run.
        sys.modules[name] = module
        try:
            with self._importable_folder():
                spec.loader.exec_module(module)
        except SyntaxError as error:
            place = f"{error.filename or self.path}:{error.lineno}"
            raise BadOptionError(f"is not valid Python: {error.msg}", where=place) from error
        except Exception as error:
            raise SurgeonError(f"failed while it was imported: {_words(error)}", where=self._place(error)) from error
        return module

    @contextlib.contextmanager
    def _importable_folder(self) -> Iterator[None]:
        """Let the file import its neighbours, as it can when Python runs it."""
        folder = str(self.path.resolve().parent)
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function.

        Raises:
            SurgeonError: It raised something; the message holds that, and the last line of the file it came through.
        """
        try:
            with self._importable_folder():
                return self._function(*arguments, **options)
        except SurgeonError:
            raise
        except Exception as error:
            raise SurgeonError(f"function '{self.name}' failed: {_words(error)}", where=self._place(error)) from error

    def _place(self, error: BaseException) -> str:
        """The file, and the line in it that the error came through last."""
        own = str(self.path.resolve())
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
        return f"{self.path}:{lines[-1]}" if lines else str(self.path)


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
