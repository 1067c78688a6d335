"""The fleet signal keeps its hits however many partitions there are; its discount fades where keys are few."""

from __future__ import annotations

from tests.evaluation.outage_partitions import SIZES, rates


def test_an_outage_opens_no_incident_and_hides_no_prober_with_1_8_and_64_partitions() -> None:
    by_size = [rates(partitions, 1.0) for partitions in SIZES]
    for found in by_size:
        assert found["false_incidents"] == 0.0
        assert found["fleet_causes"] == ["fleet:errors with 4xx", "fleet:errors with 5xx"], "one for each cause"
        assert found["broken_found"] == found["probes_found"] == 1.0
    false = [found["false_findings"] for found in by_size]
    assert false[0] < 0.1 < false[-1] and false == sorted(false), "few keys know of an outage too late, or never"
