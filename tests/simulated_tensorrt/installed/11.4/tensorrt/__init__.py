"""The simulated TensorRT 11.4, under the real one's name."""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[5])
if _ROOT not in sys.path:
    sys.path.append(_ROOT)

from tests.simulated_tensorrt.assemble import fill  # noqa: E402

fill(globals(), "11.4")
sys.modules[f"{__name__}.tensorrt"] = sys.modules[__name__]  # the real one has its classes there
