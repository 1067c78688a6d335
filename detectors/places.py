"""Where a key is used from: its last addresses, and which of its networks occur together. For geography."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.known_values import HOUR_US, clear, find, forget_lately, hours

NETWORKS: Final = 10
ADDRESSES: Final = 8
PENDING: Final = 4  # distinct values of one visit that are tested and learned; more are not
TOGETHER_US: Final = 12 * HOUR_US  # networks used within this time of each other occur together


@compiled
def recent(addresses: Any, address: int) -> bool:
    """Whether the key was used from this address lately; 0 is no address."""
    if address == 0:
        return False
    for j in range(len(addresses)):  # noqa: SIM110  (a generator would not compile to a plain loop)
        if addresses[j] == address:
            return True
    return False


@compiled
def short(address: int) -> int:
    """The address hash in 32 bits, 0 only for none."""
    if address == 0:
        return 0
    return max(1, int(np.uint64(address) >> np.uint64(32)))


@compiled
def wait_address(state: Any, address: int) -> None:
    """Keep the visit's first two addresses."""
    for j in range(len(state.waiting_addresses)):
        if state.waiting_addresses[j] == address:
            return
        if state.waiting_addresses[j] == 0:
            state.waiting_addresses[j] = address
            return


@compiled
def keep_addresses(state: Any, ts_us: int) -> None:
    """The visit's addresses into the ring; `lately`: 16 * those of the hour before `lately_h` + those of it."""
    hour = hours(ts_us) % 256
    behind = (hour - int(state.lately_h)) % 256
    state.lately = int(state.lately) if behind == 0 else int(state.lately) % 16 * 16 if behind == 1 else 0
    state.lately_h = hour
    for j in range(len(state.waiting_addresses)):
        address = state.waiting_addresses[j]
        if address != 0 and not recent(state.addresses, address):
            state.addresses[state.address_next % ADDRESSES] = address
            state.address_next = (state.address_next + 1) % ADDRESSES
            if int(state.lately) % 16 < ADDRESSES:
                state.lately = int(state.lately) + 1


@compiled
def forget_addresses(state: Any, start_us: int) -> None:
    """Those of the hours of which `forget_lately` takes values back; one that stayed would make its network known."""
    behind = (hours(start_us) - int(state.lately_h)) % 256
    count = int(state.lately) % 16 + int(state.lately) // 16 if behind == 0 else int(state.lately) % 16
    for _ in range(min(ADDRESSES, count) if behind <= 1 else 0):
        state.address_next = (int(state.address_next) + ADDRESSES - 1) % ADDRESSES
        state.addresses[state.address_next] = 0
    state.lately = 0


@compiled
def leapt_here(state: Any, event: Any) -> bool:
    """Whether this visit came to this new network with no time to travel; the owner's own network stays what it is."""
    return int(state.leapt) == 1 and event.asn == state.place_asn


@compiled
def forget_hour(state: Any, visit: Any) -> None:
    """An incident opened in this visit: what the hour before it brought is not learned, either."""
    networks = forget_lately(state.networks, visit)
    if forget_lately(state.countries, visit) + networks > 0:
        forget_addresses(state, int(visit.start_us))


@compiled
def join(state: Any, ts_us: int) -> None:
    """The networks of this visit, and the one before it if that was lately, occur together."""
    mask = 0
    for j in range(PENDING):
        k = find(state.networks, state.waiting[j].value) if state.waiting[j].value != 0 else -1
        if k >= 0:
            mask |= 1 << k
    for j in range(NETWORKS):
        lately = (hours(ts_us) - state.networks[j].last_h) % 65_536 * HOUR_US <= TOGETHER_US
        if state.networks[j].value != 0 and lately:
            mask |= 1 << j
    for j in range(NETWORKS):
        if (mask >> j) & 1 == 1:
            state.networks[j].with_ = (int(state.networks[j].with_) | mask) & 65_535


@compiled
def forget_visit(state: Any) -> None:
    """The pending part is used or dropped."""
    clear(state.waiting)
    clear(state.waiting_countries)
    for j in range(len(state.waiting_addresses)):
        state.waiting_addresses[j] = 0
    state.was_elsewhere = 0
    state.leapt = 0
