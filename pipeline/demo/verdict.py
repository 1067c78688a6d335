"""What was injected against what was found: the demo's exit code, from messages and from answers to real requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.demo.story import Scene
from pipeline.demo.watch import Watch
from schemas.incident import Incident
from schemas.response import Response


@dataclass(frozen=True, slots=True)
class Outcome:
    """One scene and what became of it. `proofs`: status of a real request with each revoked key afterwards."""

    scene: Scene
    incident: Incident | None  # the last revision of the first incident on the scene's keys
    found_after_s: float | None
    listed: int  # keys of the scene with an incident
    acts: tuple[Response, ...]
    revoked_after_s: float | None
    proofs: Mapping[str, int]

    @property
    def good(self) -> bool:
        """Attack: found, and out of use where it must be. Innocent: nothing was done to any of its keys."""
        if not self.scene.attack:
            return not self.acts
        if self.incident is None:
            return False
        answers = [self.proofs.get(key) for key in self.scene.keys]
        if self.scene.must_fence:
            return self.stopped_after_s is not None and 200 in answers and {act.rung for act in self.acts} == {"fence"}
        return not self.scene.must_revoke or 401 in answers

    @property
    def stopped_after_s(self) -> float | None:
        """From the first hostile request to the answer of the first of those that were refused to the end."""
        if not self.scene.refused_us or self.revoked_after_s is None:
            return None
        return (self.scene.refused_us - self.scene.started_us) / 1e6


def judge(scenes: Sequence[Scene], watch: Watch, proofs: Mapping[str, int]) -> list[Outcome]:
    """One outcome per scene, in the scenes' order."""
    return [_outcome(scene, watch, proofs) for scene in scenes]


def _outcome(scene: Scene, watch: Watch, proofs: Mapping[str, int]) -> Outcome:
    keys = frozenset(scene.keys)
    seen = watch.first_incident(keys, scene.started_us) if scene.started_us else None
    done = [act for act in watch.acts(keys) if isinstance(act.body, Response) and act.body.stage == "done"]
    return Outcome(
        scene=scene,
        incident=None if seen is None else _latest(seen.body, watch),
        found_after_s=None if seen is None else (seen.at_us - scene.started_us) / 1e6,
        listed=sum(watch.first_incident(frozenset({key}), scene.started_us) is not None for key in keys),
        acts=tuple(act.body for act in watch.acts(keys) if isinstance(act.body, Response)),
        revoked_after_s=(done[0].at_us - scene.started_us) / 1e6 if done else None,
        proofs={key: status for key, status in proofs.items() if key in keys},
    )


def _latest(first: Incident | Response, watch: Watch) -> Incident | None:
    found = [seen.body for seen in watch.incidents if seen.body.incident_id == first.incident_id]
    return next((body for body in reversed(found) if isinstance(body, Incident)), None)


def strangers(scenes: Sequence[Scene], watch: Watch) -> list[str]:
    """Keys outside all attacks that something was done to: none, or the demo has failed."""
    attacked = {key for scene in scenes if scene.attack for key in scene.keys}
    return sorted({act.body.key_id for act in watch.acts()} - attacked)


def passed(outcomes: Sequence[Outcome], acted_innocents: Sequence[str]) -> bool:
    """All attacks found, the leaked key out of use, the fenced one out of its thief's, and no innocent key touched."""
    return all(outcome.good for outcome in outcomes) and not acted_innocents
