"""docs/tensorrt.md and the README show what the commands really print, and that is the truth about planted faults."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulated_tensorrt import installed
from tests.surgeon.conftest import Said
from tests.surgeon.tensorrt_stories import PAGE, README, STORIES, VERSION, blocks, set_up


def words(text: str) -> list[str]:
    """Words with every number unified: times and last digits differ from machine to machine."""
    return re.sub(r"\d[\d.,e+-]*", "N", text).split()


@pytest.fixture
def played(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A story's model in the working folder, and its TensorRT; gives the story's name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(installed(VERSION)))
    for name, value in set_up(STORIES[request.param], tmp_path).items():
        monkeypatch.setenv(name, value)
    return str(request.param)


def told(page: Path) -> dict[str, list[str]]:
    """What is typed in each story."""
    found: dict[str, list[str]] = {}
    for story, command, _ in blocks(page):
        arguments = shlex.split(command)
        found.setdefault(story, []).append(" ".join(arguments[1 : 3 if arguments[1] == "find" else 2]))
    return found


def test_every_story_is_told() -> None:
    assert told(README) == {"kernel": ["compare", "find tactic", "build", "compare"]}
    assert told(PAGE) == {
        "kernel": ["compare", "find tactic", "build", "compare"],
        "fusion": ["compare", "find auto", "find fusion", "compare"],
        "refusal": ["build", "find nodes", "rewrite", "build", "compare", "extract"],
    }


@pytest.mark.parametrize(
    ("played", "page"), [*((story, PAGE) for story in STORIES), ("kernel", README)], indirect=["played"]
)
def test_the_page_tells_the_truth(surgeon: Callable[..., Said], played: str, page: Path) -> None:
    for story, command, output in blocks(page):
        if story != played:
            continue
        said = surgeon(*shlex.split(command)[1:])
        again = "python -m tests.surgeon.tensorrt_stories writes it anew"
        assert words(said.out + said.err) == words(output), f"{command}: {again}"


@pytest.mark.parametrize("played", ["kernel"], indirect=True)
def test_the_kernel_is_the_one_that_was_planted(surgeon: Callable[..., Said], played: str) -> None:
    found = surgeon("find", "tactic", "net.onnx", "--json").document
    assert found["outcome"] == "found"
    (culprit,) = found["details"]
    (member,) = culprit["members"]
    assert "matmul2" in member["nodes"] and member["bad"]["hash"] != member["good"]["hash"]
    built = surgeon("build", "net.onnx", "-o", "net.engine", "--timing-cache", "net.good.cache", "--pin")
    assert built.code == 0
    assert surgeon("compare", "net.onnx", "--target", "tensorrt").code == 1
    right = surgeon("compare", "net.onnx", "--target", "tensorrt:cache=net.good.cache,strict=true", "--json")
    assert right.code == 0 and right.document["verdict"] == "agree"


@pytest.mark.parametrize("played", ["fusion"], indirect=True)
def test_the_fusion_vanishes_when_it_is_looked_at(surgeon: Callable[..., Said], played: str) -> None:
    assert surgeon("compare", "net.onnx", "--target", "tensorrt").code == 1
    looked = surgeon("compare", "net.onnx", "--target", "tensorrt", "--layers", "--pieces", "--json").document
    assert not [layer for layer in looked["layers"] if layer["verdict"] == "wrong"]
    assert surgeon("find", "tactic", "net.onnx", "--json").document["outcome"] != "found"


@pytest.mark.parametrize("played", ["refusal"], indirect=True)
def test_the_refused_node_is_named_and_repaired(surgeon: Callable[..., Said], played: str) -> None:
    refused = surgeon("build", "unet.onnx", "-o", "unet.engine")
    assert refused.code == 2 and "node crop (CenterCropPad)" in refused.err and len(refused.err.splitlines()) == 1
    assert surgeon("find", "nodes", "unet.onnx", "--target", "tensorrt", "--json").document["culprits"] == [["crop"]]
    pipeline = ("-p", "inline-functions:ops=CenterCropPad", "-r", "simplify", "--verify")
    assert surgeon("rewrite", "unet.onnx", *pipeline, "-o", "unet.fixed.onnx").code == 0
    assert surgeon("compare", "unet.onnx", "unet.fixed.onnx", "--target", "tensorrt").code == 0
