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
from pathlib import Path

from clickhouse_connect.driver.client import Client

from pipeline.config import ClickHouse
from pipeline.hunt import Quarry, hunt
from pipeline.migrate import migrate
from pipeline.sinks.connect import connect
from tests.bench.grown import print_json

DAY_S = 86_400
START_S = 1_790_000_000 // DAY_S * DAY_S
NETWORKS = 2_000
STRANGER = 64_999
TIMES = 5

SOURCES = """
    INSERT INTO key_source_1h
    SELECT concat('key_', leftPad(toString(key), 5, '0')), toDateTime({start} + day * 86400 + hour * 3600),
        concat('10.', toString(net % 250), '.', toString(key % 200), '.0/24'), 60000 + net,
        ['DE', 'FR', 'US', 'NL'][net % 4 + 1], ['python-requests', 'okhttp', 'axios', 'curl'][key % 4 + 1],
        concat('/v1/', ['orders', 'users', 'files', 'me'][route + 1]),
        ['success', 'success', 'success', 'denied'][route + 1],
        'p', 1, 10, 0, 0, 0, 0, 0, 0, 100, 1000,
        toDateTime64({start} + day * 86400 + hour * 3600 + 60, 6),
        toDateTime64({start} + day * 86400 + hour * 3600 + 1800, 6)
    FROM (
        SELECT number % {keys} AS key, intDiv(number, {keys}) % 30 AS slot, intDiv(number, {keys} * 30) AS day,
            intDiv(slot, 3) + 8 AS hour, slot % 3 + (slot % 7 = 0) AS route,
            (cityHash64(key) + (day % 2) * (key % 3 = 0)) % {networks} AS net
        FROM numbers({keys} * 30 * {days})
    )"""
STRANGERS = """
    INSERT INTO key_source_1h
    SELECT concat('key_', leftPad(toString(number * 7 % {keys}), 5, '0')),
        toDateTime({start} + 20 * 86400 + 3600 * (number % 3)),
        '203.0.113.0/24', {asn}, 'RO', 'sqlmap', '/v1/admin', 'denied', 'p', 1, 5, 0, 5, 0, 0, 0, 0, 1, 1,
        toDateTime64({start} + 20 * 86400 + 60, 6), toDateTime64({start} + 20 * 86400 + 120, 6)
    FROM numbers(300)"""
REQUESTS = """
    INSERT INTO requests
    SELECT concat('key_', leftPad(toString(key), 5, '0')),
        toDateTime64({start} + ({days} - 14) * 86400 + day * 86400 + slot * 860, 6),
        toString(number), 'GET', concat('/v1/', ['orders', 'users', 'files'][slot % 3 + 1]), '/v1/x', 200, 'success',
        toIPv6(concat('::ffff:10.', toString(net % 250), '.', toString(key % 200), '.', toString(key % 250))),
        'DE', 60000 + net, 'python-requests', 'python-requests/2.31', 5, 1, 100, 'live', '', 0, 1, 'e', key % 8, number
    FROM (
        SELECT number, number % {keys} AS key, intDiv(number, {keys}) % {each} AS slot,
            intDiv(number, {keys} * {each}) AS day, cityHash64(key) % {networks} AS net
        FROM numbers({keys} * {each} * 14)
    )"""


def fill(client: Client, keys: int, days: int, each: int) -> None:
    """Rows by the server's own generator, merged as they would be after a while."""
    names = {"keys": keys, "days": days, "start": START_S, "networks": NETWORKS, "asn": STRANGER, "each": each}
    for sql in (SOURCES, STRANGERS, REQUESTS):
        client.command(sql.format(**names))
    for table in ("key_source_1h", "requests"):
        client.command(f"OPTIMIZE TABLE {table}")


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
        span = {"from_us": START_S * 10**6, "to_us": (START_S + chosen.days * DAY_S) * 10**6}
        rows = {t: client.command(f"SELECT count() FROM {t}") for t in ("key_source_1h", "requests")}
        quarries = {
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
        print_json("hunt", {"rows": rows})
        for name, quarry in quarries.items():
            print_json(name, timed(client, quarry))
        client.close()


if __name__ == "__main__":
    main()
