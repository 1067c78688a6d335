"""One notice, many renderings, a file each: pure functions from a notice to the bytes that an endpoint's kind takes.

None of them knows a secret: what is rendered may wait on the decisions topic for days. The channel that sends it
(`pipeline/respond/delivery/channel.py`) puts routing keys, signatures and addresses in at each attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.config.night import Kind
from pipeline.respond.delivery.notice import Notice
from pipeline.respond.render import alertmanager, cloudevents, mail, ocsf, pagerduty, slack, standard


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a kind of endpoint is told."""

    body: Callable[[Notice], bytes]
    content_type: str = "application/json"


RENDERINGS: Final[Mapping[Kind, Rendering]] = {
    "webhook": Rendering(standard.body),
    "cloudevents": Rendering(cloudevents.body, cloudevents.CONTENT_TYPE),
    "ocsf": Rendering(ocsf.body),
    "alertmanager": Rendering(alertmanager.body),
    "pagerduty": Rendering(pagerduty.body),
    "slack": Rendering(slack.body),
    "email": Rendering(mail.body),
}
