"""A TensorRT that needs no GPU: the Python API of 10.16 and 11.4 over onnxruntime, with faults planted on request.

The names, signatures and enums come from manifests of the real modules. Put :func:`installed` on the ``PYTHONPATH`` of
a process and ``import tensorrt`` gives the simulator there, ``cuda.bindings.runtime`` a CUDA runtime in host memory.
"""

from __future__ import annotations

from pathlib import Path

HOME = Path(__file__).parent
PROFILES = ("10.16", "11.4")
VERSIONS = {"10.16": "10.16.1.11", "11.4": "11.4.0.106"}
"""What ``tensorrt.__version__`` says, by profile."""


def installed(profile: str) -> Path:
    """The folder to put on a process's ``PYTHONPATH``."""
    folder = HOME / "installed" / profile
    if not folder.is_dir():
        raise ValueError(f"there is no profile {profile}; there are {', '.join(PROFILES)}")
    return folder
