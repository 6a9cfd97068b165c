"""Runs Polygraphy's own loaders and TrtRunner on the tensorrt of this process, and saves what they gave.

``python -m tests.simulated_tensorrt.polygraphy_run FOLDER``: every ``NAME.onnx`` there with its ``NAME.npz`` of inputs
gives ``NAME.out.npz``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.simulated_tensorrt.device_memory import device


class HostCuda:
    """What ``polygraphy.cuda.wrapper()`` gives, over the simulated device."""

    def create_stream(self) -> int:
        """A stream."""
        return device().create_stream()

    def stream_synchronize(self, ptr: Any) -> None:
        """Wait."""
        device().drain(_number(ptr))

    def destroy_stream(self, ptr: Any) -> None:
        """End a stream."""
        device().destroy_stream(_number(ptr))

    def malloc(self, nbytes: int) -> int:
        """Memory."""
        return device().malloc(nbytes)

    def free(self, ptr: Any) -> None:
        """Give memory back."""
        device().free(_number(ptr))

    def memcpy(self, dst: Any, src: Any, nbytes: int, kind: Any, stream_ptr: Any = None) -> None:
        """Copy, on a stream if one is given."""
        to, source = _number(dst), _number(src)
        if stream_ptr is None:
            device().copy(to, source, nbytes, int(kind.value))
        else:
            device().put(_number(stream_ptr), lambda: device().copy(to, source, nbytes, int(kind.value)))


def _number(pointer: Any) -> int:
    return int(getattr(pointer, "value", pointer) or 0)


def run(path: Path) -> dict[str, np.ndarray]:
    """Build and run one model as Polygraphy does."""
    import polygraphy.cuda.cuda as polygraphy_cuda
    from polygraphy.backend.trt import CreateConfig, EngineFromNetwork, NetworkFromOnnxPath, Profile, TrtRunner

    polygraphy_cuda.G_CUDA = HostCuda()
    with np.load(path.with_suffix(".npz")) as stored:
        feeds = {name: stored[name] for name in stored.files}
    profile = Profile()
    for name, value in feeds.items():
        profile.add(name, value.shape, value.shape, value.shape)
    config = CreateConfig(profiles=[profile], load_timing_cache=None, tf32=False)
    with TrtRunner(EngineFromNetwork(NetworkFromOnnxPath(str(path), strongly_typed=True), config)) as runner:
        return {name: np.array(value) for name, value in runner.infer(feeds).items()}


def main(folder: Path) -> None:
    """Run all models of a folder."""
    for path in sorted(folder.glob("*.onnx")):
        np.savez(path.with_suffix(".out.npz"), **run(path))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
