"""A record as one file: what is known of a TensorRT and its device, to be sent to whoever asked for it."""

from __future__ import annotations

import json
import platform
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgeon_debug.package_versions import package_versions
from surgeon_passes.atomic_write import staged
from surgeon_passes.errors import FileError

SCHEMA = "surgeon.tensorrt.record/1"
"""The ``schema`` of the document; the number changes when a field changes its meaning."""

DOCUMENT = "record.json"
"""The file in the zip that says what the others are."""

_PACKAGES = ("onnx", "onnx-ir", "numpy", "onnxruntime", "cuda-python", "cuda-bindings", "onnx-surgeon")
_TEXT = (".json", ".log")
_DATE = (1980, 1, 1, 0, 0, 0)


def write_record_file(path: Path, folder: Path, found: Mapping[str, Any]) -> None:
    """Write a record.

    Args:
        path: The zip file.
        folder: What it shall hold; the name of this folder is taken out of all texts.
        found: The document of the check.

    Raises:
        FileError: It cannot be written.
    """
    document = {
        "schema": SCHEMA,
        "check": found,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": package_versions(_PACKAGES),
    }
    with staged() as files, files.open(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, DOCUMENT, _plain(json.dumps(document, indent=1), folder).encode())
        for inner in sorted(one for one in folder.rglob("*") if one.is_file()):
            content = inner.read_bytes()
            if inner.suffix in _TEXT:
                content = _plain(content.decode("utf-8", "replace"), folder).encode()
            _add(archive, inner.relative_to(folder).as_posix(), content)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, content)


def _plain(text: str, folder: Path) -> str:
    """Text without the names of the folders of this machine."""
    return text.replace(str(folder) + "/", "").replace(str(folder), "").replace(str(Path.home()), "~")


def read_record_file(path: Path) -> dict[str, Any]:
    """The document of a record.

    Raises:
        FileError: It cannot be read, or is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            document = json.loads(archive.read(DOCUMENT))
    except OSError as error:
        raise FileError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(path)) from error
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FileError(f"is no record: {error}", where=str(path)) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise FileError("is no record of this version", where=str(path))
    return document
