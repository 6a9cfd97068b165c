"""How the simulator lays numbers out in memory."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tests.simulated_tensorrt.elements import laid_out, read_back, size_of


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3, 5), (0, 4)])
@pytest.mark.parametrize("kind", ["FLOAT", "HALF", "BF16", "INT8", "INT64", "BOOL", "FP8", "INT4", "FP4"])
def test_what_is_written_is_read(kind: str, shape: tuple[int, ...]) -> None:
    value = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(np.float32)
    raw = laid_out(value, kind)
    assert raw.nbytes == size_of(kind, shape)
    assert (read_back(raw.tobytes(), kind, shape).astype(np.float32) == value).all()


def test_two_to_a_byte_the_first_in_the_low_half() -> None:
    assert laid_out(np.array([1, -2, 3], ml_dtypes.int4), "INT4").tolist() == [0xE1, 0x03]
    assert laid_out(np.array([0.5, -6.0], np.float32), "FP4").tolist() == [0xF1]
    assert [size_of("INT4", (n,)) for n in (0, 1, 2, 5)] == [0, 1, 1, 3]
