"""The detectors: one file each, registered here by one line.

The order is the pass's: what a network detector finds new is in `visit.new_place` for those after it.
"""

from typing import Final

from detectors.detector import Detector
from detectors.errors import ERRORS
from detectors.geography import GEOGRAPHY
from detectors.off_hours import DETECTOR as OFF_HOURS
from detectors.spike import DETECTOR as SPIKE

DETECTORS: Final[tuple[Detector, ...]] = (GEOGRAPHY, SPIKE, ERRORS, OFF_HOURS)
