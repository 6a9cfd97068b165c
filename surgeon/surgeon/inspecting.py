"""What ``surgeon inspect`` does: it finds out what a file is, and shows that."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from surgeon.cli import DONE, FINDING
from surgeon.console import print_json, results, talk
from surgeon.report import cache_report, engine_report
from surgeon_debug.runners.tensorrt.described import Found, Kind, describe, difference_of, look_at, tactics_of
from surgeon_passes.errors import BadOptionError


@dataclasses.dataclass(frozen=True)
class Order:
    """The options of ``surgeon inspect``, as typed; see its help."""

    model: Path
    other: Path | None
    nodes: str | None
    layers: bool
    allow_external: bool
    as_json: bool


def perform(order: Order) -> int:
    """Show it; returns the exit code.

    Raises:
        SurgeonError: A file cannot be read, or an option means nothing for it.
    """
    looked = look_at(order.model)
    kind = looked.kind
    if order.other is not None:
        return _compare(order, looked, look_at(order.other))
    if kind is Kind.OTHER:
        if order.layers:
            raise BadOptionError("--layers is for engines and timing caches", hint="use --nodes '*' for a model")
        _show_model(order)
        return DONE
    if order.nodes is not None:
        raise BadOptionError(f"--nodes is for models, and this is a TensorRT {kind.value}", hint="use --layers")
    with talk().status(f"reading {order.model.name}"):
        document = describe(looked)
    if order.as_json:
        print_json(document)
    elif kind is Kind.ENGINE:
        engine_report.print_engine(results(), order.model, document, every=order.layers)
    else:
        cache_report.print_cache(results(), order.model, document, tactics_of(document), every=order.layers)
    return DONE


def _compare(order: Order, first: Found, second: Found) -> int:
    for one in (first, second):
        if one.kind is not Kind.CACHE:
            hint = "surgeon compare takes two models"
            raise BadOptionError("only two timing caches can be compared here", where=str(one.path), hint=hint)
    with talk().status(f"reading {first.path.name} and {second.path.name}"):
        found = difference_of(describe(first), describe(second))
    if order.as_json:
        print_json(
            {
                "schema": "surgeon.cachediff/1",
                "first": str(order.model),
                "second": str(second.path),
                "equal": found.equal,
                **found.to_json(),
            }
        )
    else:
        cache_report.print_difference(results(), (first.path, second.path), found, every=order.layers)
    return DONE if found.equal else FINDING


def _show_model(order: Order) -> None:
    from surgeon.report import model_report
    from surgeon_passes.census import census_of, nodes_matching  # an engine is shown without what reads models
    from surgeon_passes.graph import load

    loaded = load(order.model, allow_external=order.allow_external, check_weights=False)
    census = census_of(loaded)
    listed = nodes_matching(loaded, order.nodes) if order.nodes is not None else None
    if order.as_json:
        print_json(model_report.document(census, listed))
    elif listed is not None:
        model_report.print_nodes(results(), listed)
    else:
        model_report.print_census(results(), order.model, census)
