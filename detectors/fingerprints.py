"""Which TLS fingerprint (JA4, JA3) comes with each client of a key: for novel_client.

Whoever copies a user agent still shakes hands as his own program does. A client's fingerprint stands in 11 bits of its
slot that clients have no use for (`known_values.SLOT`: below them `with_` marks slots, above them ADMITTED), so a key
takes no byte more: 7 bits of its hash (one fingerprint in 127 is taken for another), 2 bits of how long it has stood
(0: since now; one more after about 4, 16 and 64 visits that brought it again), and the major version modulo 4.

Another fingerprint than the client's own is foreign, unless the version has changed with it: then the client was
updated. A foreign one takes a step of standing away and takes the place at none, so one visit of a stranger does not
make him the owner. How often a fingerprint of such standing changes, peers tell; before they do, half a time in 1, 4,
16 and 64 visits, and never less than once in 4, 16, 64 and 256 (no log of real keys with fingerprints is known to us,
so peers are not believed further [judged]). Keys whose fingerprint is new with every connection (JA3 of browsers,
which send their extensions in random order; a JA4 sorts them) never come to stand.

Many at once (a client's release, another CDN) are seen within the hour: of the last 64 visits of peers whose
fingerprint had stood longest, those with a foreign one count at once, all but two.
"""

from __future__ import annotations

from typing import Any, Final

from detectors.compile import compiled

HASHES: Final = 127
STANDINGS: Final = 4
LONGEST: Final = STANDINGS - 1
AT: Final = 4  # bit of `with_` at which the hash begins
STANDING_AT: Final = 11
VERSION_AT: Final = 13
OTHERS: Final = 0x800F  # bits of `with_` that are not ours
KEPT: Final = 4_000.0  # visits of one standing; then all are halved
LATELY: Final = 64.0  # visits
USUAL_LATELY: Final = 2.0  # foreign ones among them that say nothing
MOST: Final = 0.9999
FIELDS: Final = [("stood", "f8", (STANDINGS,)), ("changed", "f8", (STANDINGS,)), ("lately", "f8")]
"""Of SHARED: visits of peers by standing, those of them with a foreign fingerprint, and how many came lately."""


@compiled
def short(fingerprint: int) -> int:
    """The hash in 7 bits; 0 only for none."""
    return 1 + int(fingerprint) % HASHES if fingerprint != 0 else 0


@compiled
def known(slot: Any) -> int:
    """The fingerprint of the client in this slot, 0 for none."""
    return (int(slot.with_) >> AT) & 127


@compiled
def standing(slot: Any) -> int:
    """How long it has stood."""
    return (int(slot.with_) >> STANDING_AT) & 3


@compiled
def write(slot: Any, brought: int, stands: int, version: int) -> None:
    """This fingerprint, from now on."""
    ours = brought << AT | stands << STANDING_AT | (version & 3) << VERSION_AT
    slot.with_ = (int(slot.with_) & OTHERS) | ours


@compiled
def differs(slot: Any, brought: int) -> bool:
    """Whether the client had another one."""
    return brought != 0 and known(slot) != 0 and brought != known(slot)


@compiled
def updated(slot: Any, version: int) -> bool:
    """Whether the client's version is another one, too."""
    return version != 0 and (version & 3) != (int(slot.with_) >> VERSION_AT) & 3


@compiled
def is_foreign(slot: Any, brought: int, version: int) -> bool:
    """Whether this client never came with that fingerprint, and no update explains it."""
    return differs(slot, brought) and not updated(slot, version)


@compiled
def least(stands: int) -> float:
    """The rarest that a change of such standing is called."""
    return 1.0 / float(4 << (2 * stands))


@compiled
def p_foreign(shared: Any, stands: int) -> float:
    """How often a visit brings a foreign fingerprint to a client whose own has stood so long."""
    p = (float(shared.changed[stands]) + 0.5) / (float(shared.stood[stands]) + float(1 << (2 * stands)))
    crowd = (float(shared.lately) - USUAL_LATELY) / LATELY
    return min(MOST, max(least(stands), max(p, crowd)))


@compiled
def tell_peers(shared: Any, stands: int, foreign: bool) -> None:
    """One visit more."""
    if float(shared.stood[stands]) > KEPT:
        shared.stood[stands] *= 0.5
        shared.changed[stands] *= 0.5
    shared.stood[stands] += 1.0
    shared.changed[stands] += 1.0 if foreign else 0.0
    if stands == LONGEST:
        shared.lately *= 1.0 - 1.0 / LATELY


@compiled
def climbs(slot: Any, stands: int, ts_us: int) -> bool:
    """Whether this visit adds a step: one in 4, 16 or 64, drawn by its time."""
    if stands == LONGEST:
        return False
    drawn = (ts_us // 1_000 % 0x80000000 * 0x9E3779B1 + int(slot.value)) % 0x100000000 >> 16
    return drawn % (4 << (2 * stands)) == 0


@compiled
def learn(slot: Any, shared: Any, brought: int, version: int, visit: Any, teaching: bool) -> None:
    """A visit of this client brought this fingerprint; what was adopted, or admitted by a person, takes the place."""
    stands = standing(slot)
    if known(slot) == 0 or (differs(slot, brought) and updated(slot, version)):
        write(slot, brought, 0, version)
        return
    foreign = differs(slot, brought)
    if teaching:
        tell_peers(shared, stands, foreign)
    said = version if version != 0 else int(slot.with_) >> VERSION_AT
    if not foreign:
        write(slot, brought, stands + (1 if climbs(slot, stands, visit.last_us) else 0), said)
    elif stands == 0 or int(visit.anew) != 0:
        write(slot, brought, 0, said)
    else:
        write(slot, known(slot), stands - 1, int(slot.with_) >> VERSION_AT)
