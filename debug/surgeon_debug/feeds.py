"""Inputs for a model that comes without any: seeded, and shaped like what the model was made for.

Uniform noise says little about a language model fed with ids beyond its vocabulary, or a mask of random numbers. What
an input is for is read from its name, dtype and rank and from the nodes that use it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from surgeon_debug.feed_roles import Role, role_of
from surgeon_debug.feed_sizes import Sizes, check_dims
from surgeon_debug.values import Value, numpy_dtype
from surgeon_passes.errors import BadModelError, BadOptionError

_MASK = re.compile(r"mask", re.IGNORECASE)
_POSITION = re.compile(r"position|pos_ids", re.IGNORECASE)
_SEGMENT = re.compile(r"token_type|segment", re.IGNORECASE)
_WORDS = ("alpha", "beta", "gamma", "delta", "", "The quick brown fox", "42", "naïve")
_IMAGE_CHANNELS = (1, 3, 4)


def inputs_of(model: ir.Model) -> list[ir.Value]:
    """The inputs that a caller must feed: graph inputs that no initializer backs."""
    return [value for value in model.graph.inputs if not value.is_initializer()]


def make_feeds(
    model: ir.Model,
    *,
    seed: int = 0,
    sample: int = 0,
    dims: Mapping[str, int] | None = None,
    small: bool = False,
) -> dict[str, Value]:
    """Seeded values for every input of a model.

    Ids stay below the size of the table they look up; masks are ones, from sample 1 on with a tail of zeros; positions
    count from 0; token types are 0 and 1; other integers are small, bytes full range; floats are normal with variance
    1; shapes, axes and counts get a number that is legal there.

    Args:
        model: The model.
        seed: The same seed gives the same sizes and values.
        sample: The same seed gives other values of the same sizes for another sample.
        dims: Sizes of symbolic dimensions. Without, a batch is 2, an image 64 x 64, all else one size from 5 to 9.
        small: Make every size that is free 1, but those of images.

    Returns:
        Values by input name; arrays for tensors, lists of arrays for sequences.

    Raises:
        BadModelError: An input has no type.
        BadOptionError: ``dims`` names what no input has, or an input takes maps, which cannot be made up.
    """
    inputs = inputs_of(model)
    sizes = Sizes(seed, dims, small=small)
    if dims:
        check_dims(dims, [value.shape for value in inputs])
    return {value.name or "": _feed(value, sizes, seed, sample) for value in inputs}


def _feed(value: ir.Value, sizes: Sizes, seed: int, sample: int) -> Value:
    kind = value.type
    if kind is None:
        raise BadModelError(f"input '{value.name}' has no type", hint="give its values with --feeds")
    while isinstance(kind, ir.OptionalType):
        kind = kind.elem_type
    rng = np.random.default_rng([seed, sample, zlib.crc32((value.name or "").encode())])
    if isinstance(kind, ir.SequenceType):
        inner = kind.elem_type
        if isinstance(inner, (ir.TensorType, ir.SparseTensorType)):
            shape = sizes.of(value.shape)
            return [_tensor(value, inner.dtype, shape, rng, sample) for _ in range(2)]
    elif isinstance(kind, ir.TensorType):
        image = _is_image(value, kind.dtype)
        return _tensor(value, kind.dtype, sizes.of(value.shape, image=image), rng, sample)
    raise BadOptionError(f"input '{value.name}' takes {kind}, which cannot be made up", hint="give it with --feeds")


def _is_image(value: ir.Value, dtype: ir.DataType) -> bool:
    shape = value.shape
    return shape is not None and len(shape) == 4 and not dtype.is_integer() and shape[1] in _IMAGE_CHANNELS


def _tensor(
    value: ir.Value, dtype: ir.DataType, shape: tuple[int, ...], rng: np.random.Generator, sample: int
) -> np.ndarray[Any, Any]:
    if dtype == ir.DataType.UNDEFINED:
        raise BadModelError(f"input '{value.name}' has no element type", hint="give its values with --feeds")
    kind = numpy_dtype(dtype.value)
    name = value.name or ""
    if dtype == ir.DataType.STRING:
        return rng.choice(np.array(_WORDS, dtype=object), shape) if shape else np.array(_WORDS[0], dtype=object)
    if _MASK.search(name):
        return np.asarray(_mask(shape, sample)).astype(kind)
    if dtype == ir.DataType.BOOL:
        # A condition: of an If it chooses the branch, of a Loop it must hold at first.
        only_loops = {node.op_type for node, _ in value.uses()} == {"Loop"}
        return np.asarray(np.ones(shape, bool) if only_loops else rng.random(shape) < 0.5)
    role = role_of(value)
    if dtype.is_integer():
        return _integers(name, dtype, shape, role, rng).astype(kind)
    if role.fill is not None:
        return np.full(shape, role.fill).astype(kind)
    numbers = np.asarray(rng.standard_normal(shape))
    if kind.kind == "c":
        numbers = numbers + 1j * rng.standard_normal(shape)
    return np.asarray(np.abs(numbers) + 0.125 if role.positive else numbers).astype(kind)


def _mask(shape: tuple[int, ...], sample: int) -> np.ndarray[Any, Any]:
    mask = np.ones(shape, np.float32)
    if sample and shape and shape[-1] > 1:
        mask[..., -max(1, shape[-1] // 4) :] = 0
    return mask


def _integers(
    name: str, dtype: ir.DataType, shape: tuple[int, ...], role: Role, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    if role.axes:
        return np.arange(int(np.prod(shape))).reshape(shape)
    if role.fill is not None:
        filled = np.full(shape, int(role.fill), np.int64)
        if role.minus_one_first and filled.size:
            filled.reshape(-1)[0] = -1
        return filled
    if _POSITION.search(name) and shape:
        positions = np.broadcast_to(np.arange(shape[-1]), shape)
        return positions % role.below if role.below else positions
    if _SEGMENT.search(name):
        return rng.integers(0, min(2, role.below or 2), shape)
    if role.below is not None:
        return rng.integers(0, role.below, shape)
    if dtype.bitwidth <= 8:
        bits = dtype.bitwidth - (1 if dtype.is_signed() else 0)
        return rng.integers(-(2**bits) if dtype.is_signed() else 0, 2**bits, shape)
    # A lone integer is an index or a count more often than data.
    return rng.integers(0, 4, shape) if shape else np.asarray(1)
