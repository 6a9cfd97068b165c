"""Failures in words for people who did not type an engine's options."""

from __future__ import annotations

import pytest

from surgeon_debug.endings import Ending, EngineFailure
from surgeon_debug.in_short import in_short

TEXT = "tensorrt:engine=/somewhere/a.engine,record=/tmp/x"


def test_the_text_gives_way_to_a_name_and_options_to_flags() -> None:
    with pytest.raises(EngineFailure) as failed, in_short(TEXT, "tensorrt", where="a.engine"):
        what = f"{TEXT} hung while preparing m.onnx"
        raise EngineFailure(what, ending=Ending.HUNG, hint="give it longer with timeout=SECONDS", nodes=["n"])
    assert str(failed.value) == "a.engine: tensorrt hung while preparing m.onnx; give it longer with --timeout SECONDS"
    assert failed.value.ending is Ending.HUNG and failed.value.nodes == ("n",)


def test_a_failure_that_says_where_keeps_its_place() -> None:
    with pytest.raises(EngineFailure, match=r"^elsewhere: no; hint$"), in_short(TEXT, "tensorrt", where="here"):
        raise EngineFailure("no", where="elsewhere", hint="hint")


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="no"), in_short(TEXT, "tensorrt"):
        raise ValueError("no")
