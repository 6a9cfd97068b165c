"""The old file is there until the new one is complete, whatever happens."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from surgeon_passes.errors import BadModelError, BadOptionError, FileError
from surgeon_passes.graph import load, to_proto
from surgeon_passes.save import Weights, save
from tests.canonical import canonical
from tests.passes.test_graph import model_with, weight, write

ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A model with external data at the target."""
    return write(
        tmp_path / "out.onnx",
        model_with([weight("old", (64, 64), 9)]),
        save_as_external_data=True,
        location="out.onnx.data",
    )


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    inline = write(tmp_path / "a.onnx", model_with([weight("w", (64, 64))]))
    external = write(
        tmp_path / "b.onnx", model_with([weight("w", (64, 64))]), save_as_external_data=True, location="b.bin"
    )
    for source, target in ((inline, inline), (external, external), (external, tmp_path / "b.bin")):
        before = source.read_bytes()
        with pytest.raises(FileError, match="never modified"):
            save(load(source), target)
        assert source.read_bytes() == before
    (tmp_path / "link.onnx").symlink_to(inline)
    with pytest.raises(FileError, match="never modified"):
        save(load(inline), tmp_path / "link.onnx")


def test_overwriting_replaces_model_and_data_together(old: Path, tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.onnx", model_with([weight("new", (64, 64))]), save_as_external_data=True, location="in.bin"
    )
    for _ in range(3):
        files = save(load(source), old)
        assert canonical(old) == canonical(source)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["in.onnx", "in.bin", *(f.name for f in files)])


def test_bad_targets_get_a_sentence(tmp_path: Path) -> None:
    model = load(write(tmp_path / "in.onnx", model_with([weight("w", (64, 64))])))
    (tmp_path / "folder").mkdir()
    for target in (
        tmp_path / "no" / "out.onnx",
        tmp_path / "folder",
        Path("/dev/null"),
        tmp_path / ("x" * 300),
        tmp_path / "a\x00b",
    ):
        with pytest.raises(FileError) as error:
            save(model, target)
        assert "\n" not in str(error.value)
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_gets_a_sentence(tmp_path: Path) -> None:
    model = load(write(tmp_path / "in.onnx", model_with([weight("w", (64, 64))])))
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    with pytest.raises(FileError, match="permission denied"):
        save(model, folder / "out.onnx")


def test_a_full_disk_leaves_the_old_file(old: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the system fails the write in the same place."""
    source = write(tmp_path / "in.onnx", model_with([weight("new", (512, 512))]))
    before = canonical(old)
    script = """
        import resource, signal, sys
        from surgeon_passes.errors import FileError
        from surgeon_passes.graph import load, to_proto
        from surgeon_passes.save import Weights, save
        model = load(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        for layout in (Weights.INLINE, Weights.EXTERNAL):
            try:
                save(model, sys.argv[2], weights=layout)
            except FileError as error:
                print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(source), str(old)],
        capture_output=True,
        text=True,
        env=ENV,
        check=True,
    )
    assert done.stdout.count("cannot be written: the file would be larger than allowed here; nothing was changed") == 2
    assert canonical(old) == before
    assert leftovers(tmp_path) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 500_000


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("layout", [Weights.INLINE, Weights.EXTERNAL])
def test_an_interrupt_or_a_kill_in_the_middle_leaves_the_old_file(
    how: signal.Signals, layout: Weights, old: Path, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.onnx", model_with([weight("new", (64, 64))]))
    before = canonical(old)
    script = """
        import sys, time
        from surgeon_passes import save as module
        from surgeon_passes.graph import load, to_proto
        model = load(sys.argv[1])
        check = module._check_length
        def slow(*arguments):
            print("writing", flush=True)
            time.sleep(30)
            check(*arguments)
        module._check_length = slow
        module.save(model, sys.argv[2], weights=module.Weights(sys.argv[3]))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(source), str(old), layout.value],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ENV,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(how)
    process.wait(timeout=20)
    assert canonical(old) == before
    if how is signal.SIGINT:
        assert leftovers(tmp_path) == []


def test_permissions_of_the_old_file_and_the_mask_are_kept(old: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.onnx", model_with([weight("w", (64, 64))]))
    old.chmod(0o640)
    save(load(source), old)
    assert old.stat().st_mode & 0o777 == 0o640
    mask = os.umask(0o027)
    try:
        save(load(source), tmp_path / "fresh.onnx")
    finally:
        os.umask(mask)
    assert (tmp_path / "fresh.onnx").stat().st_mode & 0o777 == 0o640


def test_kept_weights_must_be_below_the_model(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    source = write(
        tmp_path / "a" / "m.onnx", model_with([weight("w", (64, 64))]), save_as_external_data=True, location="m.bin"
    )
    save(load(source), tmp_path / "up.onnx", weights=Weights.KEEP)
    assert canonical(tmp_path / "up.onnx") == canonical(source)
    (tmp_path / "b").mkdir()
    with pytest.raises(BadOptionError, match="not the folder"):
        save(load(source), tmp_path / "b" / "m.onnx", weights=Weights.KEEP)


def test_copying_needs_no_memory_for_weights(tmp_path: Path) -> None:
    """200 MB of weights, inline and external, copied by a process whose peak stays far below."""
    big = np.zeros((50, 1024, 1024), np.float32)
    big[:, 0, 0] = np.arange(50)
    write(tmp_path / "inline.onnx", model_with([onnx.numpy_helper.from_array(big, "w")]))
    write(
        tmp_path / "ext.onnx",
        model_with([onnx.numpy_helper.from_array(big, "w")]),
        save_as_external_data=True,
        location="ext.bin",
    )
    script = """
        import resource, sys
        from surgeon_passes.graph import load, to_proto
        from surgeon_passes.save import Weights, save
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for source in sys.argv[2:]:
            for layout in (Weights.INLINE, Weights.EXTERNAL):
                save(load(source), sys.argv[1], weights=layout)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
    """
    started = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(script),
            *(str(tmp_path / n) for n in ("out.onnx", "inline.onnx", "ext.onnx")),
        ],
        capture_output=True,
        text=True,
        env=ENV,
        check=True,
    )
    assert int(done.stdout) < 40_000  # kB
    assert time.monotonic() - started < 120


def test_what_exceeds_one_message_goes_outside(tmp_path: Path) -> None:
    """Five weights of 500 MB that share their memory, and so their place in the file."""
    model = load(write(tmp_path / "m.onnx", model_with([weight("w", (2, 2))])))
    tensor = ir.tensor(np.zeros((125, 1_000_000), np.float32))
    for i in range(5):
        value = ir.Value(name=f"big_{i}", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        model.graph.register_initializer(value)
    with pytest.raises(BadModelError, match=r"2\.5 GB of weights"):
        to_proto(model)
    with pytest.raises(BadOptionError, match="do not fit into one ONNX file"):
        save(model, tmp_path / "out.onnx", weights=Weights.INLINE)
    files = save(model, tmp_path / "out.onnx")
    assert [f.name for f in files] == ["out.onnx.data", "out.onnx"]
    assert files[0].stat().st_size == 500_000_000
    assert load(tmp_path / "out.onnx").graph.initializers["big_4"].shape == [125, 1_000_000]
