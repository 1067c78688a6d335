"""Unmodified real logs through the replay: false alarms on the Apache log, invictus judged by event window."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from pipeline.evaluation.sources import seconds
from pipeline.runners.replay import ReplayOptions, run
from pipeline.times import micros

WINDOW_S: Final = 600.0
ATTACKER: Final = "stratus-red-team_"


def both(data: Path) -> dict[str, Any]:
    """The two logs."""
    return {"apache": apache(data), "invictus": invictus(data)}


def apache(data: Path) -> dict[str, float]:
    """Key = address; whatever opens is counted as a false alarm. The interval is Poisson's, by Byar."""
    outcome = run(
        ReplayOptions(paths=(data / "weblog-elastic-apache" / "apache_logs",), format="combined", key_from="address")
    )
    days = outcome.keys * (outcome.last_us - outcome.first_us) / 86_400_000_000
    count = len(outcome.incidents)
    low = count * (1 - 1 / (9 * count) - 1.96 / (3 * count**0.5)) ** 3 if count else 0.0
    high = (count + 1) * (1 - 1 / (9 * (count + 1)) + 1.96 / (3 * (count + 1) ** 0.5)) ** 3
    return {
        "events": outcome.events, "keys": outcome.keys, "key_days": days, "incidents": count,
        "per_100k_key_days": 1e5 * count / days, "low": 1e5 * low / days, "high": 1e5 * high / days,
    }  # fmt: skip


def invictus(data: Path) -> dict[str, Any]:
    """Windows of ten minutes of one key: attacked where an event is the tool's; alarmed where an incident opens.

    One key carries the attack and the set-up, so a window can be both; what tells them apart, the user agent, is a
    label leak that detectors also see as a client: recall here is an upper bound, and there is no history before.
    """
    files = tuple(sorted((data / "cloudtrail-invictus").glob("*.json")))
    windows: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for path in files:
        for record in json.loads(path.read_bytes())["Records"]:
            key = record.get("userIdentity", {}).get("accessKeyId")
            if key:
                at = int(seconds(record) // WINDOW_S)
                windows[key, at].append(str(record.get("userAgent", "")).startswith(ATTACKER))
    outcome = run(ReplayOptions(paths=files, format="cloudtrail"))
    alarmed = {(each.key_id, int(micros(each.opened_at) / 1e6 // WINDOW_S)) for each in outcome.incidents.values()}
    attacked = {window for window, marks in windows.items() if any(marks)}
    innocent = set(windows) - attacked
    return {
        "attacked_windows": len(attacked), "alarmed_of_them": len(attacked & alarmed),
        "innocent_windows": len(innocent), "alarmed_innocent": len(innocent & alarmed),
        "incidents": len(outcome.incidents),
    }  # fmt: skip
