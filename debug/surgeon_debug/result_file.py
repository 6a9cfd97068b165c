"""The result of a comparison as a file: its JSON document, written whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgeon_passes.atomic_write import staged
from surgeon_passes.errors import BadOptionError, FileError

_SCHEMA = re.compile(r"surgeon\.(?P<kind>[a-z-]+)/(?P<version>\d+)")


def save_result(document: Mapping[str, Any], path: str | Path) -> None:
    """Write a document.

    Args:
        document: Plain JSON values with a ``schema`` field such as ``surgeon.compare/2``.
        path: The file.

    Raises:
        BadOptionError: It is not such a document.
        FileError: The file cannot be written.
    """
    path = Path(path)
    if not _SCHEMA.fullmatch(str(document.get("schema"))):
        raise BadOptionError("a result needs a schema such as surgeon.compare/2", where=str(path))
    try:
        text = json.dumps(document, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadOptionError(f"a result holds what JSON lacks: {error}", where=str(path)) from error
    with staged() as files, files.open(path) as out:
        out.write(text.encode() + b"\n")


def load_result(path: str | Path, schema: str) -> dict[str, Any]:
    """Read a document back.

    Args:
        path: The file.
        schema: The schema that this version knows, such as ``surgeon.compare/2``.

    Raises:
        FileError: It cannot be read, is of another kind, or of another version of that kind.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise FileError("is no saved result, or is cut short", where=str(path), hint="save it again") from error
    found = _SCHEMA.fullmatch(str(document.get("schema"))) if isinstance(document, dict) else None
    known = _SCHEMA.fullmatch(schema)
    if found is None or known is None:
        raise FileError("is no saved result", where=str(path), hint="save one with --save")
    if found["kind"] != known["kind"]:
        raise FileError(f"is a result of 'surgeon {found['kind']}', not of 'surgeon {known['kind']}'", where=str(path))
    if found["version"] != known["version"]:
        age = "a newer" if int(found["version"]) > int(known["version"]) else "an older"
        raise FileError(
            f"was saved by {age} version ({found[0]}; this one reads {schema})", where=str(path), hint="save it again"
        )
    assert isinstance(document, dict)
    return document
