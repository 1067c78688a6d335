"""Which acts are watched is what the ledger says of them."""

from __future__ import annotations

import msgspec

from pipeline.respond.act import INTENT_LIVES_S
from pipeline.respond.adapters.webhook import MATRIX
from pipeline.respond.enforcement.watched import in_force
from pipeline.respond.ledger.entries import Finished, Kept, Undo, Used
from pipeline.respond.ledger.ledger import Ledger
from tests.pipeline.respond.ledger.test_ledger import finished, proposed, run

MATRICES = {"keys": MATRIX}
SECOND_US = 1_000_000
FENCE = proposed(rung="fence", adapter="keys", networks=("192.0.2.0/24",))


def watched(ledger: Ledger) -> list[tuple[str, float]]:
    return [(each.key_id, each.confirmed_us / 1e6) for each in in_force(ledger, MATRICES, frozenset({0}))]


def test_an_act_is_watched_from_its_confirmation_on_with_its_adapters_allowance() -> None:
    ledger, _ = run((10 * SECOND_US, FENCE), (12 * SECOND_US, finished(FENCE)))
    (watch,) = in_force(ledger, MATRICES, frozenset({0}))
    assert (watch.confirmed_us, watch.allowance_us) == (12 * SECOND_US, 5 * SECOND_US)
    assert (watch.rung, watch.networks, watch.revision) == ("fence", ("192.0.2.0/24",), 1)


def test_of_several_responders_the_owner_of_the_incidents_partition_alone_watches() -> None:
    far = msgspec.structs.replace(FENCE, partition=3)
    ledger, _ = run((1, far), (2, finished(far)))
    assert [list(in_force(ledger, MATRICES, frozenset(owned))) for owned in ({0, 1}, set[int]())] == [[], []]
    assert [each.partition for each in in_force(ledger, MATRICES, frozenset({3}))] == [3]
    assert watched(run((1, FENCE), (2, finished(FENCE)))[0])  # of no known partition: the first one's owner


def test_what_is_only_granted_simulated_or_failed_is_not_watched() -> None:
    assert watched(run((1, FENCE))[0]) == []
    assert watched(run((1, proposed(simulated=True)))[0]) == []
    assert watched(run((1, FENCE), (2, finished(FENCE, "failed")))[0]) == []


def test_what_was_undone_is_watched_no_more() -> None:
    asked = Undo(act_id=FENCE.act_id, by="ann", reason="a mistake", responder="a")
    undone = Finished(act_id=FENCE.act_id, response_id=FENCE.response_id, result="done", direction="undo")
    ledger, _ = run((1, FENCE), (2, finished(FENCE)), (3, asked), (4, undone))
    assert watched(ledger) == []


def test_of_an_act_that_was_kept_the_latest_moment_counts_at_which_it_can_have_been_confirmed() -> None:
    ledger, _ = run((1, Kept(proposal=FENCE, offset=0, at_us=5 * SECOND_US)))
    assert watched(ledger) == [("k1", 5.0 + INTENT_LIVES_S)]


def test_of_a_rotation_its_new_key_is_watched_until_it_was_seen_in_use() -> None:
    of = proposed(rung="rotate", act_id="r", response_id="r")
    done = msgspec.structs.replace(finished(of), new_key_id="k9")
    ledger, _ = run((1, of), (2, done))
    assert [key for key, _ in watched(ledger)] == ["k9"]
    ledger.apply(2, 3, Used(act_id="r", response_id="r", at_us=3))
    assert watched(ledger) == []
    assert watched(run((1, of), (2, msgspec.structs.replace(done, new_key_id=of.key_id)))[0]) == []
