"""The real bindings over a stub of the library behave as the simulator does, where no GPU is needed to see it.

Needs a package index and a C compiler; skipped, with the reason, where one is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulated_tensorrt import PROFILES, VERSIONS, assemble, installed, manifest
from tests.simulated_tensorrt.plan import Plan
from tests.simulated_tensorrt.real_bindings import NotAvailableError, RealBindings, fetch

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.real_bindings


@pytest.fixture(scope="module", params=PROFILES)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RealBindings]:
    try:
        return request.param, fetch(VERSIONS[request.param], tmp_path_factory.mktemp("bindings"))
    except NotAvailableError as reason:
        pytest.skip(str(reason))


def ask(bindings: RealBindings, code: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code], env=bindings.environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.split("FACTS")[-1])


def simulated(profile: str) -> RealBindings:
    path = os.pathsep.join([str(installed(profile)), str(ROOT)])
    return RealBindings({**os.environ, "PYTHONPATH": path}, "tensorrt")


def test_values_enums_exceptions_and_subclasses_behave_alike(real: tuple[str, RealBindings]) -> None:
    profile, bindings = real
    code = f"from tests.simulated_tensorrt import facts; facts.main({bindings.module!r})"
    theirs = dict(ask(bindings, code))
    ours = dict(ask(simulated(profile), "from tests.simulated_tensorrt import facts; facts.main('tensorrt')"))
    assert len(theirs) > 100
    different = [f"{line}: {said}; ours {ours[line]}" for line, said in theirs.items() if ours[line] != said]
    assert different == []


def test_the_manifest_is_that_of_the_real_module(real: tuple[str, RealBindings]) -> None:
    profile, bindings = real
    code = (
        "import json, tensorrt_bindings; from tests.simulated_tensorrt import manifest;"
        "print('FACTS' + json.dumps(manifest.dump(tensorrt_bindings)))"
    )
    theirs = ask(bindings, code)
    kept = manifest.flatten(assemble.manifest(profile))
    changed = {name: (kept.get(name), text) for name, text in theirs.items() if kept.get(name) != text}
    del changed["DataType.itemsize"]  # made in Python; its text is the manifest's own
    # How a buffer is offered depends on the version of Python.
    assert {name for name in changed if not name.endswith(("__buffer__", "__release_buffer__"))} == set()
    assert {name for name in kept if name not in theirs and not name.endswith("__buffer__")} == set()


def test_without_a_usable_device_a_builder_cannot_be_made(real: tuple[str, RealBindings]) -> None:
    profile, bindings = real
    code = (
        "import json, tensorrt_bindings as trt\n"
        "try:\n    trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))\n"
        "except Exception as e:\n    print('FACTS' + json.dumps([type(e).__name__, str(e)]))"
    )
    trt = assemble.module(profile, Plan(devices=0))
    with pytest.raises(TypeError) as ours:
        trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    assert ask(bindings, code) == ["TypeError", str(ours.value)]
