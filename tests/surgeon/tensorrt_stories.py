"""The stories that docs/tensorrt.md tells, and the README one of them, on a simulated TensorRT with a planted fault.

``python -m tests.surgeon.tensorrt_stories`` types every command of both again and writes what it prints into them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from surgeon import cli
from tests.simulated_tensorrt import installed
from tests.simulated_tensorrt.models import mlp, model, weights
from tests.simulated_tensorrt.plan import Fault, Plan, Where, write

HOUSE = Path(__file__).parent.parent.parent
PAGE, README = HOUSE / "docs" / "tensorrt.md", HOUSE / "README.md"
BLOCK = re.compile(r"```console story=(?P<story>\w+)\n\$ (?P<command>surgeon .+?)\n(?P<output>.*?)```", re.DOTALL)


def net() -> onnx.ModelProto:
    """Three products, each with a bias and pointwise operators after it."""
    return mlp(3, 32)


def unet() -> onnx.ModelProto:
    """A convolution whose result is joined with a crop of the input; CenterCropPad is no operator of TensorRT's."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="down", strides=[2, 2]),
        node("Relu", ["c"], ["r"], name="relu"),
        node("CenterCropPad", ["x", "size"], ["cut"], name="crop", axes=[2, 3]),
        node("Concat", ["r", "cut"], ["j"], name="join", axis=1),
        node("Conv", ["j", "v"], ["h"], name="head", pads=[1] * 4),
        node("Sigmoid", ["h"], ["y"], name="sigmoid"),
    ]
    constants = [
        weights("w", 4, 3, 3, 3),
        weights("v", 2, 7, 3, 3),
        numpy_helper.from_array(np.array([7, 7], np.int64), "size"),
    ]
    inputs, outputs = [("x", TensorProto.FLOAT, [1, 3, 16, 16])], [("y", TensorProto.FLOAT, [1, 2, 7, 7])]
    return model(nodes, inputs, outputs, constants, opset=18)


@dataclasses.dataclass(frozen=True)
class Story:
    """What a story is played on."""

    make: Callable[[], onnx.ModelProto]
    file: str
    plan: Plan


STORIES = {
    "kernel": Story(
        net,
        "net.onnx",
        Plan((Fault("wrong_values", Where(node="matmul2", rank=0), mode="tile", amount=0.2),)),
    ),
    "fusion": Story(
        net,
        "net.onnx",
        Plan((Fault("wrong_values", Where(node="mul1"), fused_with=("sigmoid1", "mul1"), amount=0.2),)),
    ),
    "refusal": Story(unet, "unet.onnx", Plan()),
}
VERSION = "11.4"


def set_up(story: Story, folder: Path) -> dict[str, str]:
    """Put a story's model into a folder; returns the environment that its engines need."""
    onnx.save(story.make(), str(folder / story.file))
    return write(story.plan, folder / "plan.json")


def blocks(page: Path = PAGE) -> list[tuple[str, str, str]]:
    """(story, command, output) of all commands of a page, in order."""
    return [(found["story"], found["command"], found["output"]) for found in BLOCK.finditer(page.read_text())]


def printed(command: str) -> str:
    """What a command prints, errors after results, as a terminal shows it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        cli.run(shlex.split(command)[1:])
    return out.getvalue() + err.getvalue()


def main() -> None:
    """Write the pages anew."""
    sys.path.insert(0, str(installed(VERSION)))
    texts: dict[tuple[str, str], str] = {}
    for name, story in STORIES.items():
        with tempfile.TemporaryDirectory() as held, contextlib.chdir(held):
            os.environ.update(set_up(story, Path(held)))
            commands = dict.fromkeys(command for page in (PAGE, README) for s, command, _ in blocks(page) if s == name)
            texts |= {(name, command): printed(command) for command in commands}

    def anew(found: re.Match[str]) -> str:
        said = "\n".join(line.rstrip() for line in texts[found["story"], found["command"]].splitlines())
        return f"```console story={found['story']}\n$ {found['command']}\n{said}\n```"

    for page in (PAGE, README):
        page.write_text(BLOCK.sub(anew, page.read_text()))


if __name__ == "__main__":
    main()
