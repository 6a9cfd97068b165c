"""A timing cache that avoids what was found: put where a user wants it, with the command that uses it."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from surgeon_debug.find.tensorrt_builds import SIZES, TensorrtBuilder, ranges_of
from surgeon_debug.runners.runner_text import parse_runner
from surgeon_debug.runners.tensorrt.record import beside, read_beside
from surgeon_debug.runners.tensorrt.tactic_log import TacticTable
from surgeon_passes.errors import FileError
from surgeon_passes.spec import unquote


def keep_cache(made: Path, place: Path, tables: Sequence[TacticTable] = ()) -> None:
    """Copy a timing cache, and what lies beside it, to where a user wants it.

    Args:
        made: The cache that a build left behind.
        place: Where it is to be.
        tables: What its keys stand for; a build that timed nothing was told nothing of that.

    Raises:
        FileError: It cannot be written.
    """
    document = read_beside(made)
    if document:
        known = {table["key"]: table for table in document.get("tables", ())}
        known = {**{table.key: table.to_json() for table in tables if table.key}, **known}
        document["tables"] = list(known.values())
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, place)
        if document:
            beside(place).write_text(json.dumps(document, indent=1), encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot be written: {(error.strerror or str(error)).lower()}", where=str(place)) from error


def build_command(builder: TensorrtBuilder, model: str, cache: Path) -> str:
    """A command that builds an engine whose tactics a timing cache decides.

    Options that the keys of the cache depend on are those of the runner's text; sizes of dynamic inputs are written
    beside the cache.

    Args:
        builder: What was built.
        model: How the user calls the model.
        cache: The timing cache.

    Raises:
        FileError: The sizes cannot be written.
    """
    given = parse_runner(builder.target)[0].options
    words = ["surgeon", "build", model, "-o", "ENGINE", "--timing-cache", str(cache), "--pin"]
    for name in ("workspace", "level", "dims", "profile", "route"):
        if name in given:
            words += [f"--{name}", unquote(given[name])]
    if given.get("tf32", "true").lower() in ("false", "0", "no", "off"):
        words.append("--no-tf32")
    if builder.sizes and not any(name in given for name in SIZES):
        sizes = cache.with_name(f"{cache.name}.sizes.json")
        try:
            sizes.write_text(json.dumps(ranges_of(builder)))
        except OSError as error:
            raise FileError(f"cannot be written: {(error.strerror or str(error)).lower()}", where=str(sizes)) from error
        words += ["--profile", str(sizes)]
    return shlex.join(words)
