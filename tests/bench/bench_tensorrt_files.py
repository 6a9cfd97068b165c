"""What is read of a TensorRT engine of ten thousand layers: seconds of the commands as typed, start of Python included.

Usage: python -m tests.bench.bench_tensorrt_files [--layers N] [--rounds N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_RUN = (sys.executable, "-c", "from surgeon.cli import main; main()")
_ROWS = 8
_KERNEL = "sm90_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x{}x32_stage{}_warpsize2x2x1"


def layers_of(count: int) -> list[dict[str, Any]]:
    """Layers as the document beside an engine holds them: each computes two nodes, in a chain."""
    tensor = {"dims": [1, 64, 56, 56], "kind": "Float, Row major linear"}
    return [
        {
            "name": f"/model/layer.{i}/conv + /model/layer.{i}/relu",
            "kind": "CaskConvolution",
            "nodes": [f"/model/layer.{i}/conv", f"/model/layer.{i}/relu"],
            "kernel": _KERNEL.format(64 + i % 3, i % 5),
            "tactic": hex(0x9E3779B97F4A7C15 * (i + 1) % 2**64),
            "origin": "",
            "inputs": [{"name": f"t{i}", **tensor}],
            "outputs": [{"name": f"t{i + 1}", **tensor}],
        }
        for i in range(count)
    ]


def tables_of(count: int, changed: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Tables of tactics and the choice of each key, the second-best for the first ``changed``."""
    tables, tactics = [], {}
    for i in range(count):
        key = f"0x{0x9E3779B97F4A7C15F39CC0605CEDC835 * (i + 1) % 2**128:032x}"
        rows = [[_KERNEL.format(k, i % 5), hex(i * 1000 + k + 1), 0.01 * (k + 1), "", ""] for k in range(_ROWS)]
        tactics[key] = str(rows[int(i < changed)][1])
        tables.append(
            {"op": f"/model/layer.{i}/conv", "key": key, "nodes": [f"/model/layer.{i}/conv"], "rows": rows,
             "chosen": tactics[key], "dialect": "editable", "runner": "", "cached": True}
        )  # fmt: skip
    return tables, tactics


def log_of(tables: list[dict[str, Any]]) -> str:
    """A verbose log of the build that timed them, with lines that say nothing of tactics in between."""
    lines = []
    for i, table in enumerate(tables):
        lines.append(f"Registering layer: {table['op']} for ONNX node: {table['op']}")
        lines.append(f"(foreignNode) Autotuning op {table['op']}_{i}(key: {table['key']}): [ONNX Layer: {table['op']}]")
        lines.append("(foreignNode) Sorted table of all evaluated tactics:")
        lines += [
            f"(foreignNode) {k}, {ms}, 1.0, 0.99, {kernel}, {tactic}, ,"
            for k, (kernel, tactic, ms, _, _) in enumerate(table["rows"])
        ]
        lines.append(f"(foreignNode) The selected tactic is (tactic hash, cost(in ms)):{table['chosen']}, 0.01")
        lines.append(f"(foreignNode) Writing the best tactic ({table['chosen']}) to cache")
    return "\n".join(lines) + "\n"


def write(folder: Path, count: int) -> None:
    """An engine, two timing caches and a log."""

    def beside(name: str, content: bytes, document: dict[str, Any]) -> None:
        (folder / name).write_bytes(content)
        whole = {**document, "digest": hashlib.sha256(content).hexdigest(), "versions": {"tensorrt": "11.4"}}
        (folder / f"{name}.json").write_text(json.dumps(whole, separators=(",", ":")))

    beside("a.engine", bytes(1 << 24), {"schema": "surgeon.tensorrt.build/1", "layers": layers_of(count)})
    for name, changed in (("a.cache", 0), ("b.cache", count // 100), ("c.cache", count)):
        tables, tactics = tables_of(count, changed)
        milliseconds = dict.fromkeys(tactics, 0.01)
        document = {"schema": "surgeon.tensorrt.cache/1", "tactics": tactics, "milliseconds": milliseconds}
        beside(name, name.encode(), {**document, "tables": tables})
    (folder / "inspector.json").write_text(json.dumps({"Layers": [_said(layer) for layer in layers_of(count)]}))
    (folder / "build.log").write_text(log_of(tables_of(count, 0)[0]))


def _said(layer: dict[str, Any]) -> dict[str, Any]:
    """A layer as the inspector describes it."""

    def tensors(held: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"Name": one["name"], "Dimensions": one["dims"], "Format/Datatype": one["kind"]} for one in held]

    return {
        "Name": layer["name"],
        "LayerType": layer["kind"],
        "Inputs": tensors(layer["inputs"]),
        "Outputs": tensors(layer["outputs"]),
        "TacticName": layer["kernel"],
        "TacticValue": layer["tactic"],
        "Metadata": "\x1e".join(f"[ONNX Layer: {name}]" for name in layer["nodes"]),
    }


def seconds_of(command: tuple[str, ...], folder: Path, rounds: int, codes: tuple[int, ...] = (0,)) -> float:
    """The least wall time of a process."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        found.append(time.perf_counter() - start)
        assert done.returncode in codes, done.stderr.decode()
    return min(found)


def main() -> None:
    """Print one line a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    read_log = (
        "from pathlib import Path; from surgeon_debug.runners.tensorrt.tactic_log import read_tactic_log as r; "
        f"assert len(r(Path('build.log')).tables) == {asked.layers}"
    )
    read_words = (
        "from pathlib import Path; from surgeon_debug.runners.tensorrt.inspector import parse_engine as r; "
        f"assert len(r(Path('inspector.json').read_text()).layers) == {asked.layers}"
    )
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        write(folder, asked.layers)
        sizes = {path.name: path.stat().st_size / 1e6 for path in folder.iterdir() if path.suffix in (".json", ".log")}
        print(", ".join(f"{name} {size:.1f} MB" for name, size in sorted(sizes.items())))
        for title, command, codes in (
            ("python -c pass", (sys.executable, "-c", "pass"), (0,)),
            ("surgeon inspect a.engine", (*_RUN, "inspect", "a.engine"), (0,)),
            ("surgeon inspect a.engine --layers", (*_RUN, "inspect", "a.engine", "--layers"), (0,)),
            ("surgeon inspect a.engine --json", (*_RUN, "inspect", "a.engine", "--json"), (0,)),
            ("surgeon inspect a.cache", (*_RUN, "inspect", "a.cache"), (0,)),
            ("surgeon inspect a.cache b.cache", (*_RUN, "inspect", "a.cache", "b.cache"), (1,)),
            ("surgeon inspect a.cache c.cache", (*_RUN, "inspect", "a.cache", "c.cache"), (1,)),
            ("read what the inspector says", (sys.executable, "-c", read_words), (0,)),
            ("read the log of the build", (sys.executable, "-c", read_log), (0,)),
        ):
            print(f"{seconds_of(command, folder, asked.rounds, codes):6.2f} s  {title}")


if __name__ == "__main__":
    main()
