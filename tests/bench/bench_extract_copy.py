"""Cut a piece out of a 2.1 GB model, and copy a 4.4 GB model through a pipeline that changes nothing, beside others.

Needs the models of ``build_large.py``. Both are read once beforehand, so that every tool finds them in the page cache,
and what a tool wrote is flushed and removed before the next one starts.
``python tests/bench/bench_extract_copy.py FOLDER --python INTERPRETER_WITH_PEERS``
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import Measured, beside, measure, table

FIRST, LAST = 3, 7
"""The piece is layers 4 to 7: 268 MB of weights."""

_IR_EXTRACT = """
import sys, onnx_ir as ir
model = ir.load(sys.argv[1])
piece = ir.convenience.extract(model.graph, [sys.argv[3]], [sys.argv[4]])
ir.save(ir.Model(piece, ir_version=model.ir_version), sys.argv[2], external_data="piece.data")
"""
_ONNX_EXTRACT = """
import sys, onnx.utils
onnx.utils.extract_model(sys.argv[1], sys.argv[2], [sys.argv[3]], [sys.argv[4]], check_model=False)
"""
_IR_COPY = """
import sys, onnx_ir as ir
ir.save(ir.load(sys.argv[1]), sys.argv[2], external_data="model.data")
"""
_ONNX_COPY = """
import sys, onnx
onnx.save_model(onnx.load(sys.argv[1]), sys.argv[2], save_as_external_data=True, location="model.data")
"""

Commands = dict[str, Callable[[Path, Path], list[str]]]


def extractors(ours: str, peers: str) -> Commands:
    """How each tool cuts the piece, as (source, target) -> command."""
    start, end = f"relu_{FIRST}", f"relu_{LAST}"
    return {
        "surgeon": lambda s, t: [
            beside(ours, "surgeon"), "extract", str(s), "--inputs", start, "--outputs", end, "-o", str(t),
        ],
        "onnx_ir": lambda s, t: [peers, "-c", _IR_EXTRACT, str(s), str(t), start, end],
        "onnx": lambda s, t: [peers, "-c", _ONNX_EXTRACT, str(s), str(t), start, end],
        "polygraphy": lambda s, t: [
            beside(peers, "polygraphy"), "surgeon", "extract", str(s), "--inputs", f"{start}:[batch,4096]:float32",
            "--outputs", f"{end}:float32", "-o", str(t),
        ],
    }  # fmt: skip


def copiers(ours: str, peers: str) -> Commands:
    """How each tool copies a model, as (source, target) -> command; cp copies the folder."""
    return {
        "cp": lambda s, t: ["cp", str(s), str(s.with_name("model.data")), str(t.parent)],
        # What we write is on the disk when we say so; cp leaves that to the system.
        "cp+sync": lambda s, t: [
            "sh", "-c", 'cp "$1" "$2" "$3" && sync "$3"/*', "sh", str(s), str(s.with_name("model.data")), str(t.parent),
        ],
        "surgeon": lambda s, t: [beside(ours, "surgeon"), "rewrite", str(s), "-p", "sort", "-o", str(t)],
        "onnx_ir": lambda s, t: [peers, "-c", _IR_COPY, str(s), str(t)],
        "onnx": lambda s, t: [peers, "-c", _ONNX_COPY, str(s), str(t)],
        "polygraphy": lambda s, t: [
            beside(peers, "polygraphy"), "surgeon", "sanitize", str(s), "-o", str(t),
            "--save-external-data", "model.data",
        ],
    }  # fmt: skip


def warm(source: Path) -> None:
    """Read the weights once."""
    with source.with_name("model.data").open("rb", buffering=0) as data:
        block = bytearray(1 << 24)
        while data.readinto(block):
            pass


def run_all(
    source: Path, commands: Commands, tools: list[str], scratch: Path, repeat: int
) -> dict[str, tuple[Measured, float]]:
    """Each tool's best run, and the megabytes that it wrote."""
    warm(source)
    found: dict[str, tuple[Measured, float]] = {}
    for tool in tools:
        if tool not in commands:
            continue
        best: tuple[Measured, float] | None = None
        for _ in range(repeat):
            folder = scratch / "out"
            folder.mkdir()
            run = measure(commands[tool](source, folder / "model.onnx"))
            written = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
            os.sync()
            shutil.rmtree(folder)
            if best is None or run.seconds < best[0].seconds:
                best = (run, written)
            if not run.ok:
                break
        assert best is not None
        found[tool] = best
    return found


def show(title: str, runs: dict[str, tuple[Measured, float]]) -> None:
    """Print one table."""
    print(f"\n{title}")
    rows = [["tool", "seconds", "peak MB", "written MB", "status"]]
    for tool, (run, written) in runs.items():
        rows.append([tool, f"{run.seconds:.2f}", f"{run.megabytes:.0f}", f"{written:.0f}", run.status])
    print(table(rows))


def verdict(sentence: str, good: bool) -> None:
    print(f"  {'reached' if good else 'MISSED '}  {sentence}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where build_large.py put the models")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers; default: this one")
    parser.add_argument("--ours", default=sys.executable, help="interpreter that has onnx-surgeon; default: this one")
    parser.add_argument("--tools", nargs="*", default=["cp", "cp+sync", "surgeon", "onnx_ir", "onnx", "polygraphy"])
    parser.add_argument("--repeat", type=int, default=1, help="runs of each tool; the fastest counts")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    ours, peers, tools = arguments.ours, arguments.python, arguments.tools
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        place = Path(scratch)
        small = arguments.folder / "mlp_2100MB" / "model.onnx"
        large = arguments.folder / "mlp_4400MB" / "model.onnx"
        extracted = run_all(small, extractors(ours, peers), tools, place, arguments.repeat)
        show("extract 268 MB of 2.1 GB", extracted)
        if "surgeon" in extracted:
            run = extracted["surgeon"][0]
            verdict(f"at most 2 s: {run.seconds:.2f} s", run.ok and run.seconds <= 2)
            verdict(f"at most 200 MB: {run.megabytes:.0f} MB", run.ok and run.megabytes <= 200)
        copied = run_all(large, copiers(ours, peers), tools, place, arguments.repeat)
        show("copy 4.4 GB through a pipeline that changes nothing", copied)
        if "surgeon" in copied and "cp" in copied:
            run, base = copied["surgeon"][0], copied["cp"][0]
            ratio = run.seconds / base.seconds
            verdict(f"at most 1.3 x cp: {ratio:.2f} x", run.ok and ratio <= 1.3)
            verdict(f"at most 150 MB: {run.megabytes:.0f} MB", run.ok and run.megabytes <= 150)
    if arguments.json:
        document = {
            "schema": "surgeon.bench.extract-copy/1",
            "extract": {tool: [run.seconds, run.megabytes, run.status] for tool, (run, _) in extracted.items()},
            "copy": {tool: [run.seconds, run.megabytes, run.status] for tool, (run, _) in copied.items()},
        }
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
