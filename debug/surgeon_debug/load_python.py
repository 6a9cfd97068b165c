"""What a user wrote in a Python file of their own: ``path/to/mine.py:name``."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from surgeon_debug.runners.contract import words_of
from surgeon_passes.errors import BadOptionError

_IN_FILE = re.compile(r"^(?P<path>.+?\.py)(?::(?P<name>[A-Za-z_]\w*))?$", re.DOTALL)


def is_in_file(text: str) -> bool:
    """Whether a text has the form ``FILE.py:NAME``, the name perhaps forgotten."""
    return _IN_FILE.match(text.strip()) is not None


def load_from_file(text: str, what: str, kind: Callable[[Any], bool] = callable) -> Any:
    """Import a Python file and take one thing out of it.

    Args:
        text: ``FILE.py:NAME``.
        what: What it shall be, in a word: ``function``, ``class``.
        kind: Tells whether a thing is one.

    Raises:
        BadOptionError: The text has another form, there is no such file, it cannot be imported, or it has no such
            thing.
    """
    found = _IN_FILE.match(text.strip())
    if found is None or not found["name"]:
        path = found["path"] if found else "FILE.py"
        raise BadOptionError(f"'{text}' names no {what}", hint=f"write {path}:{what.upper()}")
    path = Path(found["path"])
    module = load_module(path)
    thing = getattr(module, found["name"], None)
    if thing is not None and kind(thing):
        return thing
    own = [n for n, item in vars(module).items() if kind(item) and getattr(item, "__module__", "") == module.__name__]
    close = difflib.get_close_matches(found["name"], own, 1) or own[:5]
    hint = f"it has {', '.join(close)}" if close else f"it has no {what}"
    wrong = f"has no {what} '{found['name']}'" if thing is None else f"'{found['name']}' is not a {what}"
    raise BadOptionError(wrong, where=str(path), hint=hint)


def load_module(path: Path) -> types.ModuleType:
    """Import a file under a name of its own, with its folder importable while it loads.

    Raises:
        BadOptionError: There is no such file, it is no Python file, or importing it fails.
    """
    if not path.is_file():
        raise BadOptionError("there is no such file", where=str(path), hint="give the path of a Python file")
    path = path.resolve()
    name = f"surgeon_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadOptionError("is not a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BadOptionError(f"cannot be imported: {words_of(error)}", where=str(path)) from error
    finally:
        sys.path.remove(str(path.parent))
    return module
