"""The script in a bundle that shows the failure to people who have nothing but Python, numpy, onnx and the engine."""

from __future__ import annotations

from surgeon_debug.packed_runner import PackedRunner
from surgeon_debug.reproduce_engines import ONNXRUNTIME, OPENVINO, OWN, REFERENCE
from surgeon_passes.spec import unquote

_HEAD = '''"""Shows the failure in this folder. Needs Python 3.10 or newer, numpy, onnx and the engine.

    python reproduce.py [--timeout SECONDS]

Exit code 1: the failure is there. 0: it is not. 2: it cannot be run here, or it fails in another way.
"""

import json
import pickle
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


class CannotRun(Exception):
    """Something is missing here; it is not the engine's failure."""


def read(entry, folder, number):
    """A value by its description in bundle.json."""
    if entry is None:
        return None
    if "sequence" in entry:
        return [read(item, folder, number) for item in entry["sequence"]]
    if "map" in entry:
        return {key: read(item, folder, number) for key, item in entry["map"]}
    if "npz" in entry:
        with zipfile.ZipFile(HERE / folder / f"{number}.npz") as archive, archive.open(entry["npz"] + ".npy") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    import onnx

    tensor = onnx.TensorProto()
    tensor.ParseFromString((HERE / folder / entry["pb"]).read_bytes())
    if tensor.data_type != onnx.TensorProto.STRING:
        return onnx.numpy_helper.to_array(tensor)
    texts = np.empty(len(tensor.string_data), object)
    texts[:] = [item.decode("utf-8", "surrogateescape") for item in tensor.string_data]
    return texts.reshape(tuple(tensor.dims))


def values(bundle, folder):
    """Values by name, one dict a sample."""
    return [
        {name: read(entry, folder, number) for name, entry in sample.items()}
        for number, sample in enumerate(bundle[folder])
    ]

'''

_TAIL = '''
def child(result):
    """Runs the engine and keeps what it delivers."""
    bundle = json.loads((HERE / "bundle.json").read_text())
    found = {}
    cap = bundle["limits"]["memory_cap"]
    if cap:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (int(cap), hard))
    try:
        prepare = engine()
        outputs = bundle["outputs"]
        with tempfile.TemporaryDirectory() as folder:
            for name in ("model.onnx", "model.onnx.data"):  # some runners write beside the model
                if (HERE / name).exists():
                    target = Path(folder) / name
                    target.write_bytes((HERE / name).read_bytes())
            run = prepare(Path(folder) / "model.onnx", outputs)
            found["values"] = []
            for feeds in values(bundle, "inputs"):
                seen = run(feeds)
                found["values"].append({name: plain(seen[name]) for name in outputs if name in seen})
    except CannotRun as error:
        found = {"cannot": str(error)}
    except MemoryError as error:
        found = {"memory": str(error) or "MemoryError"}
    except Exception as error:
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        lacks = any(part in words.lower() for part in ("bad_alloc", "out of memory", "allocate"))
        found = {"memory" if lacks else "refused": words}
    Path(result).write_bytes(pickle.dumps(found))
    sys.stdout.flush()
    import os

    os._exit(0)  # some engines crash when the interpreter takes itself apart


def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, dict):
        return value
    return np.array(value)


def run_in_child(timeout):
    """What the engine does in a process of its own: ("values", ...), ("refused", words), ("crashed", signal), ..."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        command = [sys.executable, "-B", __file__, "--child", str(result)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=timeout)
        except subprocess.TimeoutExpired:
            return "hung", f"nothing within {timeout:g} s"
        if done.returncode < 0:
            try:
                name = signal.Signals(-done.returncode).name
            except ValueError:
                name = f"signal {-done.returncode}"
            return "crashed", name
        if done.returncode or not result.exists():
            return "crashed", f"exit code {done.returncode}"
        [(what, content)] = pickle.loads(result.read_bytes()).items()  # written by ourselves a moment ago
        return what, content


def leaves(value):
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    if isinstance(value, dict):
        return [leaf for key in sorted(value, key=repr) for leaf in leaves(value[key])]
    return [] if value is None else [np.asarray(value)]


def text(array):
    items = (i.decode("utf-8", "surrogateescape") if isinstance(i, bytes) else str(i) for i in array.ravel())
    return np.array(list(items), object)


def compare(name, rule, expected, seen):
    """Prints one output over all samples; whether it is wrong."""
    top = bottom = worst = 0.0
    nan = [0, 0]
    special = unequal = beyond_one = elements = 0
    exact = False
    for ours, theirs in zip(expected, seen):
        if name not in theirs:
            print(f"  {name}: not delivered")
            return True
        a, b = leaves(ours[name]), leaves(theirs[name])
        if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b)):
            shapes = [[x.shape for x in side] for side in (a, b)]
            print(f"  {name}: expected shape {shapes[0]}, seen {shapes[1]}")
            return True
        for x, y in zip(a, b):
            elements += x.size
            if x.dtype.kind in "OSU":
                exact = True
                unequal += int((text(x) != text(y)).sum())
                beyond_one = unequal
                continue
            whole = x.dtype.kind in "biu" or (x.dtype.isbuiltin == 2 and "float" not in x.dtype.name)
            with np.errstate(all="ignore"):
                wide = np.complex128 if x.dtype.kind == "c" else np.float64
                if whole:
                    exact = True
                    one, two = x.astype(object if x.dtype.itemsize == 8 else np.float64), y.astype(np.float64)
                    off = np.abs(one.astype(np.float64) - two)
                    unequal += int((x != y).sum())
                    # True and False are no numbers, and not one step apart.
                    beyond_one += int((off > (0 if x.dtype.kind == "b" else 1)).sum())
                    worst = max(worst, float(off.max(initial=0)))
                    continue
                r, t = x.astype(wide).ravel(), y.astype(wide).ravel()
                if x.dtype.kind == "c":
                    r, t = r.view(np.float64), t.view(np.float64)
                nan[0] += int(np.isnan(r).sum())
                nan[1] += int(np.isnan(t).sum())
                same = (np.isnan(r) & np.isnan(t)) | (r == t)
                unequal += int((~same).sum())
                finite = np.isfinite(r) & np.isfinite(t)
                special += int((~finite & ~same).sum())
                d = t[finite] - r[finite]
                top += float(d @ d)
                bottom += float(r[finite] @ r[finite])
                worst = max(worst, float(np.abs(d).max(initial=0)))
    rel = (top / bottom) ** 0.5 if bottom else (float("inf") if top else 0.0)
    if exact:
        allowed = rule["rounds_to_integers"] and beyond_one == 0 and unequal <= max(1, 0.01 * elements)
        wrong = unequal > 0 and not allowed
    else:
        wrong = unequal > 0 and (special > 0 or not rel <= rule["rel_l2"])
    print(
        f"  {name}: max abs {worst:.3g}, relative L2 {rel:.3g} (wrong above {rule['rel_l2']:.3g}), "
        f"NaN {nan[0]} expected {nan[1]} seen, {unequal} of {elements} unequal: {'WRONG' if wrong else 'ok'}"
    )
    return wrong


def equal_bits(one, other):
    def same(a, b):
        if a.dtype.kind in "OSU" or b.dtype.kind in "OSU":
            return a.shape == b.shape and bool((text(a) == text(b)).all())
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

    pairs = [(leaves(ours.get(n)), leaves(theirs.get(n))) for ours, theirs in zip(one, other) for n in ours]
    return all(len(a) == len(b) and all(same(x, y) for x, y in zip(a, b)) for a, b in pairs)


def main():
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
    bundle = json.loads((HERE / "bundle.json").read_text())
    failure = bundle["failure"]
    kind, detail = failure["kind"], failure["detail"]
    timeout = float(sys.argv[2]) if sys.argv[1:2] == ["--timeout"] else bundle["limits"]["timeout"] or 600.0
    print(f"{', '.join(bundle['culprit']['nodes'])} on {bundle['target']['text']}")
    print(f"looked for: {kind}{' (' + detail + ')' if detail else ''}")
    what, content = run_in_child(timeout)
    if what == "cannot":
        print(f"cannot run: {content}")
        return 2
    by_values = kind in ("wrong numbers", "NaN or Inf", "wrong shape or type")
    if what == "values":
        wrong = False
        if bundle["expected"]:
            expected = values(bundle, "expected")
            wrong = any([compare(n, rule, expected, content) for n, rule in failure["rules"].items()])
        if bundle["seen"]:
            same = equal_bits(values(bundle, "seen"), content)
            print(f"  equal to what was seen then, bit by bit: {'yes' if same else 'no'}")
        print("the failure is there" if wrong and by_values else "the failure is not there")
        return 1 if wrong and by_values else 0
    words = {"refused": "the engine refuses it", "crashed": "the engine crashes", "hung": "the engine hangs",
             "memory": "the engine runs out of memory"}
    print(f"  {words[what]}: {content}")
    named = {"refused": "refused", "crashed": "crashed", "hung": "hung", "memory": "out of memory"}[what]
    there = named == kind and (what != "crashed" or not detail or detail == content)
    if kind == "out of memory" and bundle["limits"]["memory_cap"]:
        there = what in ("memory", "crashed")  # many engines end themselves when they are given no more
    print("the failure is there" if there else "it fails in another way")
    return 1 if there else 2


if __name__ == "__main__":
    try:
        code = main()
    except Exception as error:  # Python's own exit code would be 1, which stands for the failure
        print(f"cannot run: {type(error).__name__}: {error}")
        code = 2
    sys.exit(code)
'''


def reproduce_script(runner: PackedRunner) -> str | None:
    """The text of ``reproduce.py`` for a bundle; None if this runner means nothing without this package.

    Args:
        runner: The engine under test.
    """
    options = repr({key: unquote(value) for key, value in runner.options.items()})
    if runner.file:
        part = OWN.format(
            file=runner.file, name=runner.name, options=options, option_files=repr(dict(runner.option_files))
        )
    elif runner.name in ("onnxruntime", "openvino", "reference"):
        template = {"onnxruntime": ONNXRUNTIME, "openvino": OPENVINO, "reference": REFERENCE}[runner.name]
        part = template.format(options=options)
    else:
        return None
    return _HEAD + part + _TAIL
