"""The fleet signal keeps its hits however many partitions there are; its discount fades where keys are few."""

from __future__ import annotations

from tests.evaluation.outage_partitions import rates


def test_an_outage_opens_no_incident_and_hides_no_prober_with_1_and_with_64_partitions() -> None:
    one, many = rates(1, 1.0), rates(64, 1.0)
    for found in (one, many):
        assert found["false_incidents"] == 0.0
        assert found["fleet_causes"] == ["fleet:errors with 4xx", "fleet:errors with 5xx"], "one for each cause"
        assert found["broken_found"] == found["probes_found"] == 1.0
    assert one["false_findings"] < 0.1 < many["false_findings"], "few keys know of an outage too late, or never"
