"""How much memory this process and its children may still take."""

from __future__ import annotations

import resource
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def memory_left() -> int:
    """Bytes: the least of what the machine has available, what control groups allow, and the limit on data."""
    limits = [_available(), _cgroup()]
    data = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if data != resource.RLIM_INFINITY:
        limits.append(data)
    known = [limit for limit in limits if limit is not None]
    return min(known, default=1 << 62)


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return None


def _cgroup() -> int | None:
    """What the groups this process is in allow, from its own group up."""
    try:
        entry = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    group = _CGROUP / entry[3:].lstrip("/")
    least: int | None = None
    while group.is_relative_to(_CGROUP):
        try:
            text = (group / "memory.max").read_text().strip()
            if text.isdigit():
                least = min(int(text), least) if least is not None else int(text)
        except OSError:
            pass
        if group == _CGROUP:
            break
        group = group.parent
    return least
