"""Builds that were recorded: a folder each with ``build.json``, ``build.log`` and ``inspector.json``.

The samples here were written by hand in the real grammar, one for each dialect of the log. A folder that somebody
records on a device goes beside them, or into a folder that the variable ``SURGEON_RECORDED`` names, and is tested with
them from then on.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

from tests.simulated_tensorrt import HOME

VARIABLE = "SURGEON_RECORDED"
_NAMES = re.compile(r"(?<=Timing Runner: )[^(]+|(?<=op )\S.*?(?=\()|(?<=for ).*|\[ONNX Layer: [^\]]*\]|^.*(?= \(Cask)")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """One recorded build."""

    name: str
    """The folder's name."""
    build: dict[str, Any]
    """What was built, with which versions; ``tactics`` maps keys to hashes."""
    log: Path
    """The verbose log."""
    inspector: str
    """The inspector's JSON."""

    @property
    def version(self) -> str:
        """TensorRT's version."""
        return str(self.build["versions"]["tensorrt"])


def load(folder: Path) -> Recorded:
    """Read one folder.

    Raises:
        ValueError: Something is missing in it.
    """
    missing = [name for name in ("build.json", "build.log", "inspector.json") if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}")
    build = json.loads((folder / "build.json").read_text(encoding="utf-8"))
    for field in ("versions", "tactics"):
        if field not in build:
            raise ValueError(f"{folder / 'build.json'} does not say its {field}")
    return Recorded(folder.name, build, folder / "build.log", (folder / "inspector.json").read_text(encoding="utf-8"))


def recorded() -> list[Recorded]:
    """All recorded builds there are."""
    homes = [HOME / "recorded", *([Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else [])]
    return [load(folder) for home in homes for folder in sorted(home.iterdir()) if folder.is_dir()]


def shapes_of_lines(lines: list[str]) -> set[str]:
    """The grammar of the lines about tactics: names, numbers and the logger's prefix taken out."""
    found = set()
    for line in lines:
        text = re.sub(r"^(\[[^\]]*\] )*(\(foreignNode\) )?", "", line.rstrip("\n"))
        if re.match(r"\s*\d+, [\d.]+, ", text):
            found.add("row of " + str(text.count(",")))
        elif re.search(r"[Tt]actic|Autotuning op|Timing Runner|Computing costs", text):
            text = _NAMES.sub("<name>", text)
            text = re.sub(r"(<name>\W*)+<name>", "<name>", text)
            text = re.sub(r"\S*xmma\S*", "<kernel>", re.sub(r"0x[0-9a-f]+", "<hex>", text))
            found.add(" ".join(re.sub(r"[\d.]*\d(e-\d+)?", "<number>", text).split()))
    return found
