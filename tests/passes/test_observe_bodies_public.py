"""Every public model with bodies or functions computes the same, bit for bit, when its inner tensors are shown."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from surgeon_debug.feeds import make_feeds
from surgeon_passes.expose_tensors import ExposeTensors
from surgeon_passes.graph import load
from surgeon_passes.observe_bodies import observe_bodies
from surgeon_passes.save import save
from tests.models import FOLDER, index
from tests.passes.test_public_models import assert_equal, checker_words, values_of

WITHIN = ("subgraph", "function")
ROWS = [row for row in index() if any(word in each for each in row["special"] for word in WITHIN)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"][-70:])
def test_outputs_keep_their_bits(row: dict[str, Any], tmp_path, counts) -> None:
    path, later = FOLDER / row["file"], tmp_path / "observed.onnx"
    observed = observe_bodies(load(path), iterations=3)
    counts["models"] += 1
    counts["tensors shown"] += len(observed.tensors)
    counts["left alone"] += len(observed.declined)
    if observed.tensors:
        ExposeTensors(names=tuple(tensor.name for tensor in observed.tensors))(observed.model)
    save(observed.model, later)
    assert not checker_words(later) or checker_words(path)
    feeds = make_feeds(load(path))
    before = values_of(path, feeds)
    if isinstance(before, str):
        pytest.skip(f"onnxruntime refuses it as it is: {before[:80]}")
    after = values_of(later, feeds)
    assert not isinstance(after, str), after
    for name, value in before.items():
        assert_equal(name, value, after[name], exact=True)
    shown = {o.name for o in onnx.load(later, load_external_data=False).graph.output}
    for tensor in observed.tensors:
        if tensor.stacked and tensor.name in shown:
            assert after[tensor.name].shape[0] <= 3, tensor.name
