"""The detectors: one file each, registered here by one line.

The order is the pass's: what a network detector finds new is in `visit.new_place` for those after it.
"""

from typing import Final

from detectors.decoy import DECOY
from detectors.detector import Detector
from detectors.dormant import DORMANT
from detectors.egress import DETECTOR as EGRESS
from detectors.enumeration import ENUMERATION
from detectors.errors import ERRORS
from detectors.geography import GEOGRAPHY
from detectors.misuse import MISUSE
from detectors.novel_client import NOVEL_CLIENT
from detectors.novel_operation import NOVEL_OPERATION
from detectors.off_hours import DETECTOR as OFF_HOURS
from detectors.sharing import SHARING
from detectors.spike import DETECTOR as SPIKE

DETECTORS: Final[tuple[Detector, ...]] = (
    GEOGRAPHY, SHARING, NOVEL_CLIENT, NOVEL_OPERATION, SPIKE, EGRESS, ERRORS, ENUMERATION, OFF_HOURS,
    DORMANT, MISUSE, DECOY,
)  # fmt: skip
