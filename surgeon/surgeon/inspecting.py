"""What ``surgeon inspect`` does: it finds out what a file is, and shows that."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from surgeon.cli import DONE, FINDING
from surgeon.console import print_json, results, talk
from surgeon.report import cache_report, engine_report
from surgeon_debug.runners.tensorrt.described import Kind, describe, kind_of, tactics_of
from surgeon_debug.runners.tensorrt.tactic_tables import diff_tactics
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
    kind = kind_of(order.model)
    if order.other is not None:
        return _compare(order, order.other, kind)
    if kind is Kind.OTHER:
        if order.layers:
            raise BadOptionError("--layers is for engines and timing caches", hint="use --nodes '*' for a model")
        _show_model(order)
        return DONE
    if order.nodes is not None:
        raise BadOptionError(f"--nodes is for models, and this is a TensorRT {kind.value}", hint="use --layers")
    with talk().status(f"reading {order.model.name}"):
        document = describe(order.model, kind)
    if order.as_json:
        print_json(document)
    elif kind is Kind.ENGINE:
        engine_report.print_engine(results(), order.model, document, every=order.layers)
    else:
        cache_report.print_cache(results(), order.model, document, tactics_of(document), every=order.layers)
    return DONE


def _compare(order: Order, other: Path, kind: Kind) -> int:
    for path, is_ in ((order.model, kind), (other, kind_of(other))):
        if is_ is not Kind.CACHE:
            raise BadOptionError(
                "only two timing caches can be compared here", where=str(path), hint="surgeon compare takes two models"
            )
    with talk().status(f"reading {order.model.name} and {other.name}"):
        documents = [describe(path, Kind.CACHE) for path in (order.model, other)]
        found = diff_tactics(tactics_of(documents[0]), tactics_of(documents[1]))
    if order.as_json:
        print_json(
            {
                "schema": "surgeon.cachediff/1",
                "first": str(order.model),
                "second": str(other),
                "equal": found.equal,
                **found.to_json(),
            }
        )
    else:
        cache_report.print_difference(results(), (order.model, other), found, every=order.layers)
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
