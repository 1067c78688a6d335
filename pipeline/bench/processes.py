"""Processor time of the servers beside the worker: found by the port they listen on, told by /proc (Linux).

Broker and ClickHouse on the same machine take of the same processors, and what they take is no worker's to save. A
server that runs elsewhere is not found, and counts as nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pipeline.bench.clock import cpu_s_of

CpuS = Callable[[], float]
_LISTENS: Final = "0A"
_PROC: Final = Path("/proc")


def servers(brokers: str, clickhouse_url: str) -> dict[str, CpuS]:
    """{"broker": processor seconds so far, all nodes together, "clickhouse": ...}."""
    ports = [int(each.rpartition(":")[2]) for each in brokers.split(",")]
    return {"broker": together(ports), "clickhouse": together([urlsplit(clickhouse_url).port or 8123])}


def together(ports: Iterable[int]) -> CpuS:
    """Of the processes that listen on these ports."""
    each = [cpu_s_of(pid) for port in ports if (pid := listener(port)) is not None]
    return lambda: sum(told() for told in each)


def listener(port: int) -> int | None:
    """The process that listens on a TCP port of this machine, as far as we may see it."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    for process in _PROC.glob("[0-9]*") if wanted else ():
        try:
            if any(str(opened.readlink()) in wanted for opened in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:  # it has ended, or is somebody else's
            continue
    return None


def _inodes(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        rows = [line.split() for line in lines]
        found |= {row[9] for row in rows if row[3] == _LISTENS and int(row[1].rpartition(":")[2], 16) == port}
    return found


def per_event(before: Mapping[str, float], after: Mapping[str, float], events: int) -> dict[str, float]:
    """Microseconds by name."""
    return {name: round(1e6 * (after[name] - before[name]) / max(events, 1), 2) for name in before}


def now(told: Mapping[str, CpuS]) -> dict[str, float]:
    """Processor seconds so far."""
    return {name: cpu_s() for name, cpu_s in told.items()}
