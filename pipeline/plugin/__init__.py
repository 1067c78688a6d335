"""Any River anomaly model beside the detectors, over each key's minutes: off the hot path, by configuration."""
