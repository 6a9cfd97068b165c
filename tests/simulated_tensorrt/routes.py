"""Build routes: the knobs that there are, their defaults, and what a string of them says."""

from __future__ import annotations

import dataclasses
import json

TUNER_VERSION = "2.17.83"


@dataclasses.dataclass(frozen=True)
class Knob:
    """One option of the compiler."""

    name: str
    """With its dash."""
    values: tuple[str, ...]
    """All values that are allowed."""
    default: str
    """The value without a request."""
    help: str
    """What it is for."""


_ON_OFF = ("on", "off")
KNOBS = (
    Knob("-conv_act_fusion", _ON_OFF, "on", "fuse an activation into the convolution before it"),
    Knob("-conv_add_fusion", _ON_OFF, "on", "fuse an addition into the convolution before it"),
    Knob("-conv_scale_fusion", _ON_OFF, "on", "fuse a scale into the convolution before it"),
    Knob("-fc_bias_fusion", _ON_OFF, "on", "fuse an addition into the matrix product before it"),
    Knob("-fc_act_fusion", _ON_OFF, "on", "fuse an activation into the matrix product before it"),
    Knob("-kgen:fuse_pointwise", _ON_OFF, "on", "generate one kernel for a run of pointwise operators"),
    Knob("-kgen:fuse_reduce", _ON_OFF, "on", "let a generated kernel hold a reduction"),
    Knob("-kgen:fuse_cast", _ON_OFF, "on", "let a generated kernel hold conversions of type"),
    Knob("-qdq_fusion", _ON_OFF, "on", "fuse quantisation into the operator that reads it"),
    Knob("-slice_fusion", _ON_OFF, "on", "slice fusion (without effect here)"),
    Knob("-copy_ppg", _ON_OFF, "on", "copy propagation (without effect here)"),
    Knob("-kgen:codegen:cuda_tile", ("0", "1", "2", "3"), "1", "code generator (without effect here)"),
)
"""What the simulated compiler offers."""


def all_routes() -> str:
    """The text of ``all_build_routes``."""
    options = [
        {
            "option": knob.name,
            "allowed_values": f"{knob.name}=[{'|'.join(knob.values)}]",
            "default_value": knob.default,
            "help": knob.help,
        }
        for knob in KNOBS
    ]
    return json.dumps({"tuner_version": TUNER_VERSION, "tuner_options": options})


def read_route(text: str) -> tuple[dict[str, str], list[str]]:
    """The value of each knob under a route, and a complaint for each token that is dropped."""
    values = {knob.name: knob.default for knob in KNOBS}
    allowed = {knob.name: knob.values for knob in KNOBS}
    complaints = []
    for token in text.split():
        name, equals, value = token.partition("=")
        name = name if name.startswith("-") else "-" + name
        if name not in allowed:
            complaints.append(f"Unknown build route option {name} is dropped.")
        elif not equals or value not in allowed[name]:
            complaints.append(f"Build route option {name} does not take the value '{value}' and is dropped.")
        else:
            values[name] = value
    return values, complaints
