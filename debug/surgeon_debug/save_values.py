"""Save named values as ``.npz``, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from surgeon_debug.values import Value
from surgeon_passes.atomic_write import staged
from surgeon_passes.errors import BadOptionError


def save_values(values: Mapping[str, Value], path: Path) -> None:
    """Write values by name into a ``.npz`` file that numpy and ``--feeds`` read.

    Types that numpy lacks (bfloat16, float8, int4) are stored as numpy stores them, as raw bytes of the item's size;
    ``--feeds`` reads them back by the model's type. The items of a sequence are stored as ``NAME[0]``, ``NAME[1]``;
    an optional without a value is left out; text is stored as unicode.

    Args:
        values: Arrays, lists of arrays, or None, by name.
        path: The file; its ending must be ``.npz``.

    Raises:
        BadOptionError: Another ending, or a value that is neither tensor nor sequence of tensors.
        FileError: The file cannot be written.
    """
    if path.suffix != ".npz":
        raise BadOptionError("values are saved as .npz", where=str(path), hint=f"write {path.with_suffix('.npz').name}")
    arrays: dict[str, np.ndarray] = {}
    for name, value in values.items():
        items = {name: value} if not isinstance(value, list) else {f"{name}[{i}]": v for i, v in enumerate(value)}
        for label, item in items.items():
            if item is None:
                continue
            array = np.asarray(item)
            if array.dtype == object:
                if not all(isinstance(entry, str) for entry in array.reshape(-1)):
                    raise BadOptionError(f"'{label}' is neither a tensor nor a sequence of tensors", where=str(path))
                array = array.astype(np.str_)
            arrays[label] = array
    with staged() as files, files.open(path) as out:
        np.savez(out, allow_pickle=False, **arrays)
