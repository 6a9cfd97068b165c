"""Rewrites of single nodes that carry them over a change in the definition of their operator.

The onnx package has such rewrites too, for whole models; it loses metadata on the way and leaves some operators as they
are although their meaning changed (Resize of version 10, GroupNormalization of version 18).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from surgeon_passes.adapter_parts import (
    Adapter,
    Rewrite,
    Site,
    attribute_to_input,
    both,
    floats_to_inputs,
    input_to_attribute,
    input_to_scalar,
    inputs_to_floats,
    scalar_to_input,
    set_input,
    without_references,
)
from surgeon_passes.constants import constant_of, small_ints
from surgeon_passes.operator_history import Step


def adapter_for(step: Step) -> Adapter | None:
    """The adapter for a step of an operator; None if there is none."""
    if step.new == 0:
        return None
    op_type = "Reduce" if step.op_type.startswith("Reduce") and step.op_type != "ReduceSum" else step.op_type
    return (_UP if step.new > step.old else _DOWN).get((op_type, step.changed_in))


def _softmax_up(site: Site) -> Rewrite | str:
    """Up to version 11 everything from ``axis`` on was one dimension."""
    axis, rank = int(str(site.attr("axis", 1))), site.rank()
    last = axis == -1 or (rank is not None and axis == rank - 1)

    def rewrite() -> None:
        node, graph = site.node, site.node.graph
        assert graph is not None
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        if last:
            return
        old, base = node.outputs[0], node.name or node.op_type
        shape = ir.node("Shape", [node.inputs[0]], name=site.names.node(f"{base}/Shape"))
        flat = ir.node("Flatten", [node.inputs[0]], {"axis": axis}, name=site.names.node(f"{base}/Flatten"))
        shape.outputs[0].name = site.names.value(f"{old.name}_shape")
        flat.outputs[0].name = site.names.value(f"{old.name}_flat")
        graph.insert_before(node, [shape, flat])
        node.replace_input_with(0, flat.outputs[0])
        back = ir.node("Reshape", [old, shape.outputs[0]], name=site.names.node(f"{base}/Reshape"))
        graph.insert_after(node, back)
        _give_place(old, back.outputs[0], site.names.value(f"{old.name}_rows"))
        for made in (shape, flat, back):
            made.metadata_props.update(node.metadata_props)

    return rewrite


def _give_place(old: ir.Value, new: ir.Value, name: str) -> None:
    """Let ``new``, computed from ``old``, be what ``old`` was to everybody else; ``old`` gets another name."""
    reader = new.producer()
    users = [use for use in old.uses() if use.node is not reader]
    for node, index in users:
        node.replace_input_with(index, new)
    graph = old.graph
    if old.is_graph_output() and graph is not None:
        for i, value in enumerate(graph.outputs):
            if value is old:
                graph.outputs[i] = new
    kept, old.name = old.name, name
    new.name, new.type, new.shape = kept, old.type, old.shape
    old.shape = None
    new.metadata_props.update(old.metadata_props)


def _softmax_down(site: Site) -> Rewrite | str:
    axis, rank = int(str(site.attr("axis", -1))), site.rank()
    if axis != -1 and (rank is None or axis != rank - 1):
        return "it is not over the last axis, which is all that the older version has"

    def rewrite() -> None:
        site.node.attributes["axis"] = ir.AttrInt64("axis", -1)

    return rewrite


def _dropout_up(site: Site) -> Rewrite | str:
    def rewrite() -> None:
        ratio = site.attr("ratio", None)
        if ratio is not None:
            del site.node.attributes["ratio"]
            set_input(site.node, 1, site.constant(np.array(ratio, np.float32), "ratio"))

    return rewrite


def _dropout_down(site: Site) -> Rewrite | str:
    training = site.node.inputs[2] if len(site.node.inputs) > 2 else None
    tensor = constant_of(training)
    if training is not None and (tensor is None or bool(tensor.numpy().reshape(-1)[0])):
        return "it may be in training mode"
    plan = inputs_to_floats(("ratio",), 1)(site)
    if isinstance(plan, str):
        return plan

    def rewrite() -> None:
        if training is not None:
            site.node.replace_input_with(2, None)
        plan()
        site.node.attributes.pop("seed", None)

    return rewrite


def _split_up(site: Site) -> Rewrite | str:
    """Equal parts have to be asked for since version 18."""

    def rewrite() -> None:
        if len(site.node.inputs) < 2 or site.node.inputs[1] is None:
            site.node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(site.node.outputs))

    return rewrite


def _split_down(site: Site) -> Rewrite | str:
    if len(site.node.inputs) > 1 and site.node.inputs[1] is not None:
        return lambda: None
    value, axis = site.node.inputs[0], int(str(site.attr("axis", 0)))
    shape = site.types[value].shape if value is not None and value in site.types else None
    size = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
    if not isinstance(size, int) or size % len(site.node.outputs):
        return "its parts are not known to be equal, which the older version wants"

    def rewrite() -> None:
        site.node.attributes.pop("num_outputs", None)

    return rewrite


def _slice_down(site: Site) -> Rewrite | str:
    steps = site.node.inputs[4] if len(site.node.inputs) > 4 else None
    ints = small_ints(steps)
    if steps is not None and (ints is None or any(step != 1 for step in ints)):
        return "it has steps, which the older version does not have"
    parts = [input_to_attribute(name, i, needed=i < 3)(site) for name, i in (("starts", 1), ("ends", 2), ("axes", 3))]
    reasons = [made for made in parts if isinstance(made, str)]
    if reasons:
        return reasons[0]

    def rewrite() -> None:
        if steps is not None:
            site.node.replace_input_with(4, None)
        for made in reversed(parts):
            assert not isinstance(made, str)
            made()

    return rewrite


def _upsample_scales(site: Site) -> Rewrite | str:
    def rewrite() -> None:
        scales = np.array(site.attr("scales", ()), np.float32)
        del site.node.attributes["scales"]
        set_input(site.node, 1, site.constant(scales, "scales"))

    return rewrite


def _rename(op_type: str) -> Adapter:
    def plan(site: Site) -> Rewrite | str:
        def rewrite() -> None:
            site.node.op_type = op_type

        return rewrite

    return plan


def _resize_up(site: Site) -> Rewrite | str:
    """Version 10 left the sampling points open; the engines that run it take asymmetric ones.

    For the nearest neighbour they round down where the tensor grows, and differ where it shrinks.
    """
    if site.has_reference():
        return "an attribute is only known when its function is called"
    nearest = str(site.attr("mode", "nearest")) == "nearest"
    if nearest and not _grows(site):
        return "version 10 does not say which neighbour is nearest where a tensor shrinks"

    def rewrite() -> None:
        set_input(site.node, 2, site.node.inputs[1])
        # Until version 13 the region of interest had to be there, though nothing but one mode reads it.
        site.node.replace_input_with(1, site.constant(np.zeros(0, np.float32), "roi"))
        name = "coordinate_transformation_mode"
        site.node.attributes[name] = ir.AttrString(name, "asymmetric")
        if nearest:
            site.node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")

    return rewrite


def _resize_down(site: Site) -> Rewrite | str:
    """Before version 13 the region of interest could not be left out."""

    def rewrite() -> None:
        if site.node.inputs[1] is None:
            site.node.replace_input_with(1, site.constant(np.zeros(0, np.float32), "roi"))
        if len(site.node.inputs) < 3 or site.node.inputs[2] is None:
            set_input(site.node, 2, site.constant(np.zeros(0, np.float32), "scales"))

    return rewrite


def _grows(site: Site) -> bool:
    """Whether every scale is a known number of at least 1; Upsample may still have them as an attribute."""
    scales = site.attr("scales", None)
    if scales is None:
        tensor = constant_of(site.node.inputs[1]) if len(site.node.inputs) > 1 else None
        scales = None if tensor is None else tensor.numpy().reshape(-1).tolist()
    return isinstance(scales, list | tuple) and all(float(scale) >= 1 for scale in scales)


def _roi_align_up(site: Site) -> Rewrite | str:
    def rewrite() -> None:
        name = "coordinate_transformation_mode"
        site.node.attributes[name] = ir.AttrString(name, "output_half_pixel")

    return rewrite


def _roi_align_down(site: Site) -> Rewrite | str:
    name = "coordinate_transformation_mode"
    if site.has_reference() or site.attr(name, "half_pixel") != "output_half_pixel":
        return "its sampling points are not those of the older version"

    def rewrite() -> None:
        del site.node.attributes[name]

    return rewrite


def _grid_sample(words: Mapping[str, str], default: str) -> Adapter:
    """The interpolations got other names."""

    def plan(site: Site) -> Rewrite | str:
        mode = str(site.attr("mode", default))

        def rewrite() -> None:
            site.node.attributes["mode"] = ir.AttrString("mode", words.get(mode, mode))

        return rewrite

    return without_references(plan)


_UP: dict[tuple[str, int], Adapter] = {
    **{(op, 13): without_references(_softmax_up) for op in ("Softmax", "LogSoftmax", "Hardmax")},
    ("Clip", 11): floats_to_inputs(("min", "max"), 1),
    ("Pad", 11): both(attribute_to_input("pads", 1), floats_to_inputs(("value",), 2)),
    ("Dropout", 12): without_references(_dropout_up),
    ("ReduceSum", 13): attribute_to_input("axes", 1),
    ("Reduce", 18): attribute_to_input("axes", 1),
    ("Squeeze", 13): attribute_to_input("axes", 1),
    ("Unsqueeze", 13): attribute_to_input("axes", 1),
    ("Split", 13): attribute_to_input("split", 1),
    ("Split", 18): _split_up,
    ("TopK", 10): scalar_to_input("k", 1, None, (1,)),
    ("Slice", 10): both(*(attribute_to_input(name, i) for i, name in enumerate(("starts", "ends", "axes"), 1))),
    ("Upsample", 9): without_references(_upsample_scales),
    ("Upsample", 10): _rename("Resize"),
    ("Scatter", 11): _rename("ScatterElements"),
    ("Resize", 11): _resize_up,
    ("RoiAlign", 16): _roi_align_up,
    ("GridSample", 20): _grid_sample({"bilinear": "linear", "bicubic": "cubic"}, "bilinear"),
    ("DFT", 20): scalar_to_input("axis", 2, 1, ()),
}

_DOWN: dict[tuple[str, int], Adapter] = {
    **{(op, 13): without_references(_softmax_down) for op in ("Softmax", "LogSoftmax", "Hardmax")},
    ("Clip", 11): inputs_to_floats(("min", "max"), 1),
    ("Pad", 11): both(inputs_to_floats(("value",), 2), input_to_attribute("pads", 1, needed=True)),
    ("Dropout", 12): without_references(_dropout_down),
    ("ReduceSum", 13): input_to_attribute("axes", 1),
    ("Reduce", 18): input_to_attribute("axes", 1),
    ("Squeeze", 13): input_to_attribute("axes", 1),
    ("Unsqueeze", 13): input_to_attribute("axes", 1, needed=True),
    ("Split", 13): input_to_attribute("split", 1),
    ("Split", 18): without_references(_split_down),
    ("TopK", 10): input_to_scalar("k", 1),
    ("Slice", 10): _slice_down,
    ("Resize", 13): _resize_down,
    ("RoiAlign", 16): _roi_align_down,
    ("GridSample", 20): _grid_sample({"linear": "bilinear", "cubic": "bicubic"}, "linear"),
    ("DFT", 20): input_to_scalar("axis", 2),
}
