"""How long `keywatch hunt` takes: `python -m tests.bench.hunt [--keys 10000] [--days 30]`.

Every key is used in ten hours of a day from one of its two networks, by one client on three routes, and its requests
are one in two hundred kept as such, so that `requests` has as many rows as the machine bears; one network in 2,000 is
the stranger's, who tries 300 keys on one day. Each hunt five times: the median and the slowest in seconds, and the
processor's time, which is what counts on a machine that others use, too (chDB works in this very process).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client

from pipeline.asking.hunt import Quarry, hunt
from pipeline.config.tree import ClickHouse
from pipeline.migrate import migrate
from pipeline.sinks.connect import connect
from tests.bench.grown import print_json
from tests.bench.insert import insert

DAY_S = 86_400
START_S = 1_790_000_000 // DAY_S * DAY_S
NETWORKS = 2_000
STRANGER = 64_999
TIMES = 5
NO_ERRORS = {f"errors_{status}": "0" for status in ("401", "403", "404", "429", "4xx", "5xx")}

NAME = "concat('key_', leftPad(toString({}), 5, '0'))"


def fills(keys: int, days: int, each: int) -> Iterator[str]:
    """The statements: sources of every key, the stranger's, and requests."""
    hour = f"{START_S} + day * 86400 + hour * 3600"
    yield insert(
        "key_source_1h",
        f"""(
            SELECT number % {keys} AS k, intDiv(number, {keys}) % 30 AS slot, intDiv(number, {keys} * 30) AS day,
                intDiv(slot, 3) + 8 AS hour, slot % 3 + (slot % 7 = 0) AS r,
                (cityHash64(k) + (day % 2) * (k % 3 = 0)) % {NETWORKS} AS net
            FROM numbers({keys} * 30 * {days})
        )""",
        key_id=NAME.format("k"), window_start=f"toDateTime({hour})", asn="60000 + net", part="'p'", requests="10",
        prefix="concat('10.', toString(net % 250), '.', toString(k % 200), '.0/24')",
        country="['DE', 'FR', 'US', 'NL'][net % 4 + 1]",
        client="['python-requests', 'okhttp', 'axios', 'curl'][k % 4 + 1]",
        route="concat('/v1/', ['orders', 'users', 'files', 'me'][r + 1])",
        outcome="['success', 'success', 'success', 'denied'][r + 1]", **NO_ERRORS,
        bytes_in="100", bytes_out="1000",
        first_ts=f"toDateTime64({hour} + 60, 6)", last_ts=f"toDateTime64({hour} + 1800, 6)",
    )  # fmt: skip
    yield insert(
        "key_source_1h", "numbers(300)", key_id=NAME.format(f"number * 7 % {keys}"),
        window_start=f"toDateTime({START_S} + 20 * 86400 + 3600 * (number % 3))", prefix="'203.0.113.0/24'",
        asn=str(STRANGER), country="'RO'", client="'sqlmap'", route="'/v1/admin'", outcome="'denied'", part="'p'",
        requests="5", **(NO_ERRORS | {"errors_403": "5"}),
        first_ts=f"toDateTime64({START_S} + 20 * 86400 + 60, 6)",
        last_ts=f"toDateTime64({START_S} + 20 * 86400 + 120, 6)",
    )  # fmt: skip
    yield insert(
        "requests",
        f"""(
            SELECT number, number % {keys} AS k, intDiv(number, {keys}) % {each} AS slot,
                intDiv(number, {keys} * {each}) AS day, cityHash64(k) % {NETWORKS} AS net
            FROM numbers({keys} * {each} * 14)
        )""",
        key_id=NAME.format("k"), ts=f"toDateTime64({START_S} + ({days} - 14 + day) * 86400 + slot * 860, 6)",
        request_id="toString(number)", method="'GET'", path="'/v1/x'", status="200", outcome="'success'",
        route="concat('/v1/', ['orders', 'users', 'files'][slot % 3 + 1])", country="'DE'", asn="60000 + net",
        client_ip="toIPv6(concat('::ffff:10.', toString(net % 250), '.', toString(k % 200), '.', toString(k % 250)))",
        client="'python-requests'", user_agent="'python-requests/2.31'", latency_ms="5", bytes_out="100",
        environment="'live'", late="0", epoch="'e'", partition="k % 8", offset="number",
    )  # fmt: skip


def fill(client: Client, keys: int, days: int, each: int) -> None:
    """Rows by the server's own generator, merged as they would be after a while."""
    for sql in fills(keys, days, each):
        client.command(sql)
    for table in ("key_source_1h", "requests"):
        client.command(f"OPTIMIZE TABLE {table}")


def quarries(days: int) -> dict[str, Quarry]:
    """What is hunted for, over all days."""
    span: dict[str, Any] = {"from_us": START_S * 10**6, "to_us": (START_S + days * DAY_S) * 10**6}
    return {
        "a stranger's network": Quarry(asn=STRANGER, **span),
        "a stranger's client": Quarry(client="sqlmap", **span),
        "a stranger's route": Quarry(route="/v1/admin", **span),
        "a stranger's address": Quarry(ip="203.0.113.9", **span),
        "an innocent's address": Quarry(ip="10.7.7.7", **span),
        "a busy network": Quarry(asn=60_007, **span),
        "a client of every fourth key": Quarry(client="curl", **span),
        "a route of every key": Quarry(route="/v1/orders", **span),
        "the same, one day": Quarry(route="/v1/orders", from_us=span["to_us"] - DAY_S * 10**6, to_us=span["to_us"]),
    }


def timed(client: Client, quarry: Quarry) -> dict[str, float]:
    """Median and slowest of `TIMES`, and how many keys were found."""
    took, worked = [], []
    for _ in range(TIMES):
        begin, busy = time.monotonic(), time.process_time()
        found = hunt(client, quarry)
        took.append(time.monotonic() - begin)
        worked.append(time.process_time() - busy)
    return {
        "keys": len(found), "median_s": round(statistics.median(took), 3), "slowest_s": round(max(took), 3),
        "processor_s": round(statistics.median(worked), 3),
    }  # fmt: skip


def main() -> None:
    """Against an embedded ClickHouse in a temporary folder."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--keys", type=int, default=10_000)
    options.add_argument("--days", type=int, default=30)
    options.add_argument("--each", type=int, default=20, help="Requests of a key and day that `requests` has.")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = ClickHouse(url=f"chdb://{Path(folder) / 'db'}", expire=False)
        migrate(config)
        client = connect(config, config.database)
        fill(client, chosen.keys, chosen.days, chosen.each)
        rows = {t: client.command(f"SELECT count() FROM {t}") for t in ("key_source_1h", "requests")}
        print_json("hunt", {"rows": rows})
        for name, quarry in quarries(chosen.days).items():
            print_json(name, timed(client, quarry))
        client.close()


if __name__ == "__main__":
    main()
