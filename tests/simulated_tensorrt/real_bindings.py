"""The real Python bindings over a stub of the library: fetched and built in a folder of the caller, kept nowhere.

The wheels are the vendor's property: they are downloaded to be asked, and never become part of anything.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


class NotAvailableError(Exception):
    """A wheel, a compiler or a network is missing; the message says which."""


@dataclasses.dataclass(frozen=True)
class RealBindings:
    """Bindings that can be imported in a process with this environment."""

    environment: dict[str, str]
    """Variables to start the process with."""
    module: str = "tensorrt_bindings"
    """What to import."""


def fetch(version: str, folder: Path) -> RealBindings:
    """Download the bindings of a version and build the stub.

    Raises:
        NotAvailableError: That cannot be done here.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NotAvailableError("there is no C compiler")
    if not sys.platform.startswith("linux"):
        raise NotAvailableError("the stub is for Linux")
    wheel = _wheel(version, folder)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "bindings")
    _stub(compiler, version.split(".")[0], folder / "lib")
    root = str(Path(__file__).parent.parent.parent)
    paths = [str(folder / "bindings"), root, os.environ.get("PYTHONPATH", "")]
    return RealBindings(
        {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "LD_LIBRARY_PATH": str(folder / "lib")}
    )


def _wheel(version: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "-d", str(folder / "wheels"), f"tensorrt-cu13-bindings=={version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailableError(f"pip cannot fetch the bindings of {version}: {error}") from error
    found = list((folder / "wheels").glob("*.whl"))
    if done.returncode or not found:
        words = (done.stderr.strip() or "no wheel").splitlines()[-1]
        raise NotAvailableError(f"pip cannot fetch the bindings of {version}: {words}")
    return found[0]


def _stub(compiler: str, major: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "stub.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    for library in _LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise NotAvailableError(f"the C compiler cannot build the stub: {done.stderr.strip()[:200]}")
