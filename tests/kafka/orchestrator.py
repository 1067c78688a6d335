"""A deployment under continuous load whose dead workers are started again, as Kubernetes would: for faults at random.

One thread produces and watches; the test's own thread breaks things meanwhile.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from pipeline.errors import Fatal, Retry
from tests.kafka.deployment import Deployment, pid_of
from tests.kafka.recovery import Watch

PAUSE_S: Final = 0.2
RECORDS: Final = 60
"""Produced in each round."""


class Orchestrator:
    """Keeps `wanted` workers of a deployment alive while records come in."""

    def __init__(self, deployment: Deployment, wanted: int, watch: Watch, records: int = RECORDS) -> None:
        self.deployment = deployment
        self.wanted = wanted
        self._records = records
        self.restarts = 0
        self.failure: BaseException | None = None
        self._watch = watch
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Something is broken, and repaired, in this block: how long it takes to be over is looked at."""
        began_s = time.monotonic()
        yield
        self._watch.ended(name, began_s)

    def running(self) -> list[subprocess.Popen[bytes]]:
        """Workers that have not ended."""
        with self._lock:
            return [worker for worker in self.deployment.workers if worker.poll() is None]

    def kill_one(self, rng: random.Random) -> None:
        """kill -9 of one of them, wherever it is in its work; it is no longer among the running ones then."""
        if running := self.running():
            killed = rng.choice(running)
            os.kill(pid_of(killed), signal.SIGKILL)
            killed.wait(20)

    def replace_one(self) -> None:
        """SIGTERM to the oldest and wait until it has ended: a rolling restart's step. It must end well."""
        oldest = self.running()[0]
        code = self.deployment.stop(oldest)
        assert code == 0, self.deployment.log_of(oldest)[-3000:]

    def scale(self, wanted: int) -> None:
        """More workers are started by the thread; surplus ones are stopped here, the newest first."""
        self.wanted = wanted
        for surplus in self.running()[wanted:][::-1]:
            code = self.deployment.stop(surplus)
            assert code == 0, self.deployment.log_of(surplus)[-3000:]

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """No more records and no more restarts; raises what went wrong in the thread."""
        self._stop.set()
        self._thread.join(60)
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._keep_alive()
                self._produce()
                self._stop.wait(PAUSE_S)
        except BaseException as error:  # noqa: BLE001  told by `end`
            self.failure = error

    def _keep_alive(self) -> None:
        missing = self.wanted - len(self.running())
        for _ in range(missing):
            with self._lock:
                self.restarts += len(self.deployment.workers) >= self.wanted
                self.deployment.start()

    def _produce(self) -> None:
        """A broker that is away, or a leader that moves, is no failure of the test: the rest comes later."""
        try:
            self.deployment.produce(self._records)
        except (Fatal, Retry, TimeoutError):
            time.sleep(PAUSE_S)


@contextmanager
def under_load(deployment: Deployment, wanted: int = 1, records: int = RECORDS) -> Iterator[Orchestrator]:
    """Load and workers while the block runs; afterwards all are stopped and have ended well, or were killed."""
    with closing(Watch(deployment)) as watch:
        orchestrator = Orchestrator(deployment, wanted, watch, records)
        orchestrator.begin()
        try:
            yield orchestrator
        finally:
            orchestrator.end()
        for worker in orchestrator.running():
            deployment.stop(worker)
