"""The layout of ``surgeon build``."""

from __future__ import annotations

import collections
from typing import Any

from rich.console import Console

from surgeon.building import Built
from surgeon.console import human_bytes
from surgeon.report.cells import plain

_KINDS = 8  # kinds of layers that are named


def document(done: Built) -> dict[str, Any]:
    """The JSON document; the tables of tactics are in the record only."""
    return {
        "schema": "surgeon.build/1",
        "model": str(done.model),
        "engine": str(done.engine),
        "bytes": done.nbytes,
        "fresh": done.fresh,
        "pinned": done.pinned,
        "build": {key: value for key, value in done.document.items() if key not in ("tables", "fusions", "routes")},
    }


def print_build(console: Console, done: Built) -> None:
    """What was built, how long it took, what is in it."""
    said = done.document
    version, device = said["versions"]["tensorrt"], said["device"]
    console.print(
        f"[bold]{plain(str(done.engine))}[/]: {human_bytes(done.nbytes)}, TensorRT {plain(version)}, "
        f"{plain(device['name'])} (compute {device['compute']})"
    )
    if done.fresh:
        seconds = said["seconds"]
        console.print(f"built in {seconds['build']:.3g} s, parsed in {seconds['parse']:.2g} s")
    else:
        console.print("was there already, built from the same model with the same options: left as it is")
    for name, span in said["ranges"].items():
        sizes = ", ".join("x".join(map(str, span[key])) for key in ("least", "best", "most"))
        console.print(f"  input {plain(name)}: from, best and to {sizes}")
    layers = said.get("layers", ())
    kinds = collections.Counter(layer["kind"] or "layer" for layer in layers)
    words = ", ".join(f"{count} {plain(kind)}" for kind, count in kinds.most_common(_KINDS))
    console.print(f"{len(layers)} layers: {words}" if layers else "the engine does not tell its layers")
    if said.get("layers_lost"):
        console.print(f"[bold]note:[/] {plain(said['layers_lost'])}")
    _print_cache(console, done)


def _print_cache(console: Console, done: Built) -> None:
    if not done.fresh:
        return
    tactics, before = done.document["tactics"], done.document["cache_before"]
    if done.pinned:
        console.print(f"all {len(tactics)} tactics are those of the timing cache")
    elif tactics:
        new = sum(key not in before for key in tactics)
        console.print(f"timing cache: {len(tactics)} tactics, {new} of them timed now")
