"""Every pass by name; its module is imported when it is asked for.

Other distributions add theirs under the entry point group ``surgeon.passes`` (name -> subclass of
:class:`surgeon_passes.contract.Pass`).
"""

from __future__ import annotations

import importlib
import importlib.metadata

from surgeon_passes.contract import Pass
from surgeon_passes.errors import BadOptionError
from surgeon_passes.near_names import did_you_mean
from surgeon_passes.spec import build, split_spec

ENTRY_POINTS = "surgeon.passes"

_BUILT_IN = {
    "convert-opset": "surgeon_passes.convert_opset:ConvertOpset",
    "convert-precision": "surgeon_passes.convert_precision:ConvertPrecision",
    "dedupe": "surgeon_passes.dedupe:Dedupe",
    "expose-tensors": "surgeon_passes.expose_tensors:ExposeTensors",
    "extract": "surgeon_passes.extract:Extract",
    "fold-constants": "surgeon_passes.fold_constants:FoldConstants",
    "freeze-shapes": "surgeon_passes.freeze_shapes:FreezeShapes",
    "fuse-batchnorm": "surgeon_passes.fuse_batchnorm:FuseBatchnorm",
    "gs": "surgeon_passes.foreign_gs:GraphSurgeonFunction",
    "fuse-pad": "surgeon_passes.fuse_pad:FusePad",
    "infer-shapes": "surgeon_passes.infer_shapes:InferShapes",
    "inline-functions": "surgeon_passes.inline_functions:InlineFunctions",
    "name-everything": "surgeon_passes.name_everything:NameEverything",
    "onnx-ir": "surgeon_passes.foreign_ir:OnnxIrPass",
    "remove-dead": "surgeon_passes.remove_dead:RemoveDead",
    "sort": "surgeon_passes.sort:Sort",
}


def pass_locations() -> dict[str, str]:
    """Every known pass: name -> ``module:Class``.

    Raises:
        BadOptionError: Two owners give the same name.
    """
    found = dict(_BUILT_IN)
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if entry.name in found and found[entry.name] != entry.value:
            raise BadOptionError(f"pass '{entry.name}' is given by both {found[entry.name]} and {entry.value}")
        found[entry.name] = entry.value
    return found


def find_pass(name: str) -> type[Pass]:
    """The class of a pass.

    Raises:
        BadOptionError: There is none of that name, or its module does not import.
    """
    locations = pass_locations()
    if name not in locations:
        raise BadOptionError(f"there is no pass '{name}'", hint=did_you_mean(name, locations))
    module, _, attribute = locations[name].partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BadOptionError(f"pass '{name}' cannot be loaded from {locations[name]}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise BadOptionError(f"{locations[name]} is not a pass", hint="derive it from surgeon_passes.contract.Pass")
    return found


def parse_step(text: str) -> Pass:
    """A pass from one line of text.

    ``fold-constants:size_limit=64MB`` is a pass of the catalogue; a dotted path such as
    ``onnx_ir.passes.common.IdentityEliminationPass`` a pass of onnx_ir's protocol; ``gs:./file.py:function`` a function
    from ``onnx_graphsurgeon.Graph`` to ``Graph``.

    Raises:
        BadOptionError: The name or an option does not exist, or a value does not fit.
    """
    if text.startswith("gs:"):
        from surgeon_passes import foreign_gs

        return foreign_gs.from_spec(text)
    name, options = split_spec(text)
    if not name:
        raise BadOptionError(f"'{text}' names no pass", hint="write NAME:KEY=VALUE")
    if "." in name:
        from surgeon_passes import foreign_ir

        return foreign_ir.from_spec(text)
    return build(find_pass(name), options)
