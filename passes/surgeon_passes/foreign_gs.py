"""A function of the user's from ``onnx_graphsurgeon.Graph`` to ``Graph``, as a step of a pipeline."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from surgeon_passes.contract import ChangeLog, Pass, option
from surgeon_passes.errors import BadOptionError, SurgeonError
from surgeon_passes.literals import literal
from surgeon_passes.spec import build, split_spec
from surgeon_passes.user_function import UserFunction

_SHORT = re.compile(r"^gs:(?P<file>.+?\.py):(?P<function>[A-Za-z_]\w*)(?P<options>:.*)?$", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class GraphSurgeonFunction(Pass):
    """Run a function from a file of yours on the model as an onnx-graphsurgeon graph.

    ``gs:FILE.py:FUNCTION`` is enough; ``gs:FILE.py:FUNCTION:KEY=VALUE`` passes arguments, written as Python literals.
    The function gets an ``onnx_graphsurgeon.Graph``, and returns one or changes the one it got. Weights are read when
    it looks at their values, the others stay where they are. What graphsurgeon has no place for (metadata,
    documentation, denotations, quantisation annotations, overloads, initializers that are inputs, exact types) is put
    back where the node or tensor is still there, and reported where it is not. The whole of it is one change, and it
    may change inputs and outputs of the model.
    """

    name: ClassVar[str] = "gs"
    example: ClassVar[str] = "surgeon rewrite model.onnx -p gs:./my_script.py:clean -o out.onnx"
    changes_interface: ClassVar[bool] = True

    file: str = option("", "The Python file.")
    function: str = option("", "The function in it.")
    arguments: tuple[tuple[str, str], ...] = option((), "More arguments of the function, as literals.", rest=True)

    def rewrite(self, model: ir.Model, log: ChangeLog) -> None:
        """Run the function, unless no further change is allowed.

        Raises:
            BadOptionError: There is no such file or function.
            SurgeonError: The function failed, or left something that is not a model.
            RefusalError: graphsurgeon cannot hold this model.
        """
        # Both read the model by graphsurgeon's objects, whose package takes its time to import.
        from surgeon_passes.gs_bridge import Bridge
        from surgeon_passes.gs_restore import Restored

        call = UserFunction(Path(self.file), self.function)
        if log.exhausted:
            return
        bridge = Bridge(model)
        returned = call(bridge.graph, **{key: literal(text) for key, text in self.arguments})
        after = bridge.graph if returned is None else returned
        if not isinstance(after, bridge.graph_class):
            raise SurgeonError(
                f"function '{self.function}' returned {type(after).__name__}",
                where=self.file,
                hint="return the graph, or nothing after changing it",
            )
        proto = bridge.export(after)
        if proto.SerializeToString(deterministic=True) == bridge.baseline.SerializeToString(deterministic=True):
            return
        result = Restored(model, bridge, after, proto)
        for name, loss in result.losses:
            log.decline(name, loss)
        outputs = [value.name for value in result.model.graph.outputs]
        if log.permit("run-function", before=result.removed, after=result.added, boundary=outputs):
            result.put_into(model)


def from_spec(text: str) -> GraphSurgeonFunction:
    """A step from ``gs:FILE.py:FUNCTION[:KEY=VALUE,...]``, or from the options by name as :func:`spec_of` writes them.

    Raises:
        BadOptionError: The text is neither.
    """
    short = _SHORT.match(text)
    if short:
        options = split_spec(f"gs{short['options'] or ''}")[1]
        options = {"file": short["file"], "function": short["function"], **options}
    else:
        options = split_spec(text)[1] if "=" in text else {}
        if not options.get("file") or not options.get("function"):
            raise BadOptionError(f"'{text}' names no function in a file", hint="write gs:./file.py:function")
    step = build(GraphSurgeonFunction, options)
    assert isinstance(step, GraphSurgeonFunction)
    return step
