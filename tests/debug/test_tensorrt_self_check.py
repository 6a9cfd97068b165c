"""The check of a user's TensorRT: what it answers on simulators whose traits are known."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from surgeon_debug.runners.catalogue import make_engine
from surgeon_debug.runners.tensorrt.record import read_map, read_tables
from surgeon_debug.runners.tensorrt.self_check import ask, check
from surgeon_debug.runners.tensorrt.self_check.answer import QUESTIONS, Answer, Reply
from surgeon_debug.runners.tensorrt.self_check.check import check_tensorrt
from surgeon_debug.runners.tensorrt.self_check.record_file import read_record_file
from surgeon_debug.runners.tensorrt.self_check.small_models import FIVE, LOOP, MLP, NONZERO, write_models
from surgeon_debug.runners.tensorrt.tactic_log import parse_tactic_log
from surgeon_passes.errors import BadOptionError, EngineError, FileError
from tests.debug.tensorrt_places import INSTALLED, VERSIONS, play
from tests.simulated_tensorrt.plan import Fault, Where
from tests.tensorrt_engines import DEVICE


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


def asked(models: dict[str, Path], number: int, more: str = "") -> Answer:
    text = f"{ask.__file__}:Ask:question={number}{more}"
    with make_engine(text, isolated=True, timeout=60) as engine:
        engine.prepare(models[MLP], [ask.ANSWER])
        return Answer.from_json(json.loads(str(engine.run({})[ask.ANSWER][0])))


def test_the_models_are_models(models: dict[str, Path]) -> None:
    assert set(FIVE) < set(models)
    for path in models.values():
        onnx.checker.check_model(str(path), full_check=True)
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert models[MLP].read_bytes() == write_models(models[MLP].parent)[MLP].read_bytes()  # the same everywhere


@pytest.mark.parametrize(
    ("number", "traits", "reply", "words"),
    [
        (1, {}, Reply.YES, "2 of 2 that were edited to another tactic kept it"),
        (1, {"classic": True}, Reply.NO, "0 of"),
        (2, {}, Reply.YES, "CaskConvolution"),
        (3, {}, Reply.NO, "0 tensors came with all on"),
        (3, {"all_covers_unfused": True}, Reply.YES, "inside Myelin"),
        (4, {}, Reply.NO, "0 of"),
        (4, {"log_threads": True}, Reply.YES, "from another thread"),
        (5, {}, Reply.UNKNOWN, "--other-cache"),
        (6, {}, Reply.YES, "were stopped"),
        (6, {"misses_let_through": 1}, Reply.NO, "went through: "),
        (7, {}, Reply.YES, "-fc_bias_fusion=off"),
    ],
)
def test_answers_follow_the_traits(
    new_tensorrt: str,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    traits: dict[str, Any],
    reply: Reply,
    words: str,
) -> None:
    play(monkeypatch, tmp_path, **traits)
    found = asked(models, number)
    assert found.reply is reply and words in found.seen, found.seen
    assert found.question == QUESTIONS[number] and json.dumps(found.to_json())


def test_what_a_version_lacks_is_an_answer(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(INSTALLED / "10.16"))
    found = asked(models, 7)
    assert found.reply is Reply.NO and "since 11.1" in found.seen


def test_an_inspector_that_talks_rubbish_is_not_understood(
    new_tensorrt: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("inspector_garbage"))
    found = asked(models, 2)
    assert found.reply is Reply.NO and "cannot be read" in found.seen


@pytest.mark.parametrize(("warns", "reply"), [(False, Reply.YES), (True, Reply.NO)])
def test_the_cache_of_another_device(
    new_tensorrt: str,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warns: bool,
    reply: Reply,
) -> None:
    play(monkeypatch, tmp_path, device="Another GPU")
    with make_engine(f"tensorrt:editable=true,save_cache={tmp_path / 'other.cache'}", isolated=True) as engine:
        engine.prepare(models[MLP], ["u2"])
    play(monkeypatch, tmp_path, mismatch_warns=warns)
    assert asked(models, 5, f",foreign={tmp_path / 'other.cache'}").reply is reply


def test_a_whole_check_and_its_record(each_tensorrt: str, tmp_path: Path) -> None:
    place = tmp_path / "record.zip"
    found = check_tensorrt(record=place, models=(MLP, NONZERO), questions=(3, 7))
    assert found.right and found.system["tensorrt"].startswith("" if each_tensorrt == DEVICE else each_tensorrt)
    assert [(model.name, model.verdict) for model in found.models] == [(MLP, "agree"), (NONZERO, "agree")]
    assert found.pin.followed and found.pin.key and found.pin.error is not None and found.pin.error < 1e-2
    document = read_record_file(place)
    assert document["check"] == json.loads(json.dumps(found.to_json()))
    with zipfile.ZipFile(place) as archive:
        for name in (MLP, NONZERO):
            build = json.loads(archive.read(f"builds/{name}/build.json"))
            log = archive.read(f"builds/{name}/build.log").decode()
            assert (
                parse_tactic_log(log).tables == tuple(read_tables(build))
                and read_map(build).keys() == build["tactics"].keys()
            )
            assert "Layers" in json.loads(archive.read(f"builds/{name}/inspector.json"))
        pinned = json.loads(archive.read("pinned/build.json"))
        assert pinned["tactics"][found.pin.key] == found.pin.tactic
        home, texts = str(Path.home()), [archive.read(n) for n in archive.namelist() if n.endswith((".json", ".log"))]
        assert not any(str(tmp_path.parent).encode() in text or f"{home}/".encode() in text for text in texts)


def test_crashes_hangs_and_differences_are_findings(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("build_crash", Where(node="scores")), Fault("wrong_values", Where(node="tanh")))
    found = check_tensorrt(models=(LOOP,), questions=(4,))
    assert not found.right
    assert found.models[0].verdict == "differ" and found.models[0].words.startswith("y: ")
    assert found.pin.followed is None and "no build has an op" in found.pin.words
    assert found.answers[0].reply is Reply.UNKNOWN and "crashed" in found.answers[0].seen
    assert found.answers[0].details["ending"] == "crashed"
    assert found.answers[0].seen.startswith("tensorrt crashed while preparing mlp.onnx")


def test_one_that_hangs_leaves_time_for_the_rest(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("build_hang", Where(op="NonZero")))
    monkeypatch.setattr(check, "_MOST", 0.1)  # not to wait for long here; there is enough for the others
    found = check_tensorrt(record=tmp_path / "r.zip", seconds=60, models=(NONZERO, LOOP), questions=(1, 7))
    assert [model.verdict for model in found.models] == ["failed", "agree"]
    words = found.models[0].words
    assert words.startswith("tensorrt hung while preparing nonzero.onnx") and "timeout" not in words
    assert [answer.reply for answer in found.answers] == [Reply.YES, Reply.YES]


def test_a_tactic_that_is_not_applied_is_a_finding(
    new_tensorrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, Fault("cache_ignored"))
    found = check_tensorrt(models=(MLP,), questions=())
    assert found.pin.followed is False and not found.right


def test_time_that_is_over_is_said(new_tensorrt: str) -> None:
    found = check_tensorrt(seconds=4, models=(MLP,), questions=(1,))
    assert found.models[0].verdict == "failed" and found.answers[0].seen == "the time was over"


def test_without_tensorrt_or_gpu_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="is not installed"):
        check_tensorrt()
    monkeypatch.syspath_prepend(str(INSTALLED / VERSIONS[-1]))
    play(monkeypatch, tmp_path, devices=0)
    with pytest.raises(EngineError, match="finds no GPU"):
        check_tensorrt(record=tmp_path / "record.zip")
    assert not (tmp_path / "record.zip").exists()


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    for name in ("a.zip", "missing.zip"):
        with pytest.raises(FileError):
            read_record_file(tmp_path / name)


def test_there_are_eight_questions(new_tensorrt: str, models: dict[str, Path]) -> None:
    with pytest.raises(BadOptionError, match="no question 9"):
        asked(models, 9)
