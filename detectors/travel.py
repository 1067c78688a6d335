"""Whether a key can have travelled from its last place to this: distance, time, networks that occur together."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from detectors.compile import compiled
from detectors.detector import ERROR_NONE, NET_ANYCAST, NET_HOSTING, NET_PRIVATE, NET_PROXY, NET_SATELLITE
from detectors.known_values import HOUR_US, find
from detectors.places import short

NET_NOWHERE: Final = NET_ANYCAST | NET_PROXY | NET_SATELLITE | NET_HOSTING | NET_PRIVATE
TRAVEL_KM: Final = 500.0
TRAVEL_KM_PER_H: Final = 1_000.0
TRAVEL_FLOOR: Final = 1.0 / 512.0


@compiled
def sine(x: float) -> float:
    """sin for |x| <= pi by its series, the same in compiled and plain Python."""
    term, total = x, x
    for k in range(1, 14):
        term = -term * x * x / ((2 * k) * (2 * k + 1))
        total += term
    return total


@compiled
def distance_km(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """Along the Earth's surface, from above cut short by up to 18 % for opposite points: errs towards no travel."""
    degree = 0.017453292519943295
    dlat = sine((lat2 - lat1) * degree / 2.0)
    dlon = sine((lon2 - lon1) * degree / 2.0)
    # cos(x) = sin(x + pi/2)
    quarter = 1.5707963267948966
    h = dlat * dlat + sine(lat1 * degree + quarter) * sine(lat2 * degree + quarter) * dlon * dlon
    h = min(1.0, max(0.0, h))
    return 2.0 * 6371.0 * math.sqrt(h) * (1.0 + h / 6.0 + 3.0 * h * h / 40.0 + 5.0 * h * h * h / 112.0)


@compiled
def has_place(event: Any) -> bool:
    """A success from a place on Earth: travel may begin or end there."""
    if event.error != ERROR_NONE or event.authenticated == 0 or event.net_flags & NET_NOWHERE != 0:
        return False
    return event.asn != 0 and float(event.accuracy_km) > 0.0


@compiled
def travels(state: Any, event: Any, config: Any) -> bool:
    """Whether nobody can have gone from the last place to this one, between networks that do not occur together."""
    if state.place_us == 0 or not has_place(event) or event.asn == state.place_asn:
        return False
    if short(event.address) == state.place_address:
        return False
    here = find(state.networks, event.asn)
    there = find(state.networks, state.place_asn)
    if here >= 0 and there >= 0 and (int(state.networks[here].with_) >> there) & 1 == 1:
        return False
    lat, lon, km_off = np.float64(state.place_lat), np.float64(state.place_lon), np.float64(state.place_km)
    km = distance_km(lat, lon, np.float64(event.lat), np.float64(event.lon))
    km_off += np.float64(event.accuracy_km)
    if km <= max(TRAVEL_KM, km_off):
        return False
    hours_apart = max(60_000_000, abs(event.ts_us - state.place_us)) / HOUR_US
    return (km - km_off) / hours_apart > config.travel_km_per_h  # the least way that both places allow


@compiled
def p_travel(state: Any) -> float:
    """This key's own rate of such pairs, at most 2 %."""
    return min(0.02, max(TRAVEL_FLOOR, (int(state.travels) + 0.5) / (float(state.network.visits) + 20.0)))
