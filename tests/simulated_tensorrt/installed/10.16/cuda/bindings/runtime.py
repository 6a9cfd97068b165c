"""The simulated CUDA runtime, under the real one's name."""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[6])
if _ROOT not in sys.path:
    sys.path.append(_ROOT)

from tests.simulated_tensorrt.cuda_queries import *  # noqa: E402, F403
from tests.simulated_tensorrt.cuda_runtime import *  # noqa: E402, F403
