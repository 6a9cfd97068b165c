"""What two models have in common: inputs that one set of values can feed, outputs and tensors of the same name.

Everything is paired by name. Outputs are never paired by position: a renamed output is a missing one.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from surgeon_debug.feed_files import check_feeds
from surgeon_debug.feeds import inputs_of
from surgeon_debug.values import Value, kind_of, numpy_dtype
from surgeon_passes.errors import BadModelError, BadOptionError


def feeds_for_other(
    feeds: Sequence[dict[str, Value]], model: ir.Model, other: ir.Model
) -> tuple[list[dict[str, Value]], list[str]]:
    """The same values for another model.

    Args:
        feeds: Samples that fit ``model``.
        model: The model they were made for.
        other: The model to feed; it may lack inputs, and have inputs of another floating-point type.

    Returns:
        The samples, and sentences on what had to be done to them.

    Raises:
        BadOptionError: The other model has an input that ``model`` lacks, or one that the values do not fit.
    """
    theirs = {value.name or "": value for value in inputs_of(other)}
    ours = [value.name or "" for value in inputs_of(model)]
    notes = []
    for name in theirs:
        if name not in ours and any(name not in sample for sample in feeds):
            close = difflib.get_close_matches(name, ours, 1)
            hint = (
                f"did it rename '{close[0]}'?" if close else f"the first model's inputs are {', '.join(ours) or 'none'}"
            )
            raise BadOptionError(f"the other model has an input '{name}' that the first lacks", hint=hint)
    lost = [name for name in ours if name not in theirs]
    if lost:
        notes.append(f"the other model has no input {', '.join(lost)}; only the first is fed with it")
    result = []
    for sample in feeds:
        given = {name: _in_type_of(theirs[name], value, notes) for name, value in sample.items() if name in theirs}
        result.append(check_feeds(given, other))
    return result, list(dict.fromkeys(notes))


def _in_type_of(declared: ir.Value, value: Value, notes: list[str]) -> Value:
    if not isinstance(declared.type, ir.TensorType) or not isinstance(value, np.ndarray):
        return value
    target = numpy_dtype(declared.type.dtype.value)
    if value.dtype == target or kind_of(value) != "float" or kind_of(np.empty(0, target)) != "float":
        return value
    notes.append(f"input {declared.name} is {value.dtype.name} and is rounded to {target.name} for the other model")
    return value.astype(target)


def output_names(model: ir.Model) -> list[str]:
    """The graph outputs by name.

    Raises:
        BadModelError: There is none.
    """
    names = [value.name for value in model.graph.outputs if value.name]
    if not names:
        raise BadModelError("the model has no outputs, so there is nothing to compare", hint="name some with extract")
    return names


def joined_outputs(model: ir.Model, other: ir.Model) -> list[str]:
    """Outputs of both models, each once, those of the first model first.

    Raises:
        BadOptionError: They have none in common.
    """
    ours, theirs = output_names(model), output_names(other)
    if not set(ours) & set(theirs):
        raise BadOptionError(
            f"the two models have no output in common: {', '.join(ours[:4])} against {', '.join(theirs[:4])}",
            hint="outputs are compared by name; rename those of one model",
        )
    return list(dict.fromkeys([*ours, *theirs]))
