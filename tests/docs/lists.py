"""Which commands of the documents are run, which are only parsed and why, and which programs are not ours."""

from __future__ import annotations

from typing import Final

RUN: Final = (
    "adapters check", "adapters matrix", "config check", "config schema", "config show", "coverage", "doctor",
    "explain", "geo info", "hunt", "incidents", "investigate", "keys audit", "keys import", "keys manifest",
    "keys rotations", "keys show", "leaks list", "leaks report", "leaks show", "migrate", "mutes", "policy check",
    "policy try", "replay", "report", "respond approver", "respond go", "respond holds", "respond pending",
    "respond promotion", "respond queue", "respond stop",
)  # fmt: skip
"""Run as they stand in the world of `tests/docs/world.py`: an embedded broker, ClickHouse in chDB, a key with an
incident, an intake that takes reports of leaks. Whoever is only named in a sentence is parsed."""

PREVIEWED: Final = ("respond act", "respond bulk")
"""Run where a document gives them with --preview."""

RUN_BESIDES: Final = (
    "cases", "respond breaker -o json", "respond dead-letters", "respond endpoints -o json", "respond leftovers",
    "respond simulate --reason rehearsal", "respond simulate --off --reason over",
    "doctor --sample access.log -o json", "console-log", "erase pk_7 --dry-run", "privacy truncate --dry-run",
    "top --once",
)  # fmt: skip
"""Run, too: sentences name them, and they need nobody's answer."""

SERVICE: Final = "runs until it is stopped; tests/kafka runs it"
SPEAKS: Final = "waits for an answer of workers or responders; tests/kafka has these"
LONG: Final = "takes minutes; has tests of its own"
PARSED: Final = {
    "console": SERVICE, "intake": SERVICE, "plugin": SERVICE, "respond": SERVICE, "worker": SERVICE,
    "top": "runs until it is stopped; --once is run",
    "cases ack": SPEAKS, "cases assign": SPEAKS, "cases close": SPEAKS, "cases snooze": SPEAKS,
    "drill run": SPEAKS, "feedback": SPEAKS, "mute": SPEAKS, "unmute": SPEAKS, "plan": SPEAKS,
    "respond act": SPEAKS, "respond approve": SPEAKS, "respond bulk": SPEAKS,
    "respond promote": "takes 14 days; tests/pipeline/respond/test_promoting.py",
    "respond deleted": SPEAKS, "respond extend": SPEAKS,
    "respond enable": SPEAKS, "respond raise": SPEAKS, "respond refuse": SPEAKS, "respond undo": SPEAKS,
    "leaks hash": "reads a secret from stdin; tests/pipeline/test_leaks.py",
    "bench": LONG, "demo": LONG, "evaluate keybench": LONG, "evaluate nab": LONG,
    "learn": "needs a broker whose offsets are right; tests/pipeline/runners/test_learn.py",
    "state export": "needs a broker whose offsets are right; tests/kafka/test_partition_change.py",
    "state import": "needs a broker whose offsets are right; tests/kafka/test_partition_change.py",
}  # fmt: skip
"""Command -> why it is only parsed: an unknown command, option or value fails all the same."""

NOT_OURS: Final = {
    "cat": "shows a file whose content is in the document; the world has it",
    "curl": "Kong's Admin API, and the console's /api/v1: tests/console/test_api.py",
    "kafka-topics.sh": "Kafka's own",
    "clickhouse-client": "ClickHouse's own",
    "deploy/kafka/acls.sh": "tests/kafka/test_security.py runs it",
    "deploy/kafka/topics.sh": "tests/deploy runs it",
    "docker": "no container runs in CI",
    "helm": "the same; tests/deploy renders the chart",
    "kubectl": "the same; tests/docs/test_install_on_kubernetes.py compares its names with the chart's",
}
"""Programs in our documents that no test runs."""

FAULTS_WANTED: Final = {
    "doctor": "nobody listens where the world's webhook points",
    "keys audit": "--fail-on finds something: that is its point",
    "keys rotations": "the same",
    "policy check": "the same",
    "respond promotion": "no policy has come that far here",
}
"""Commands whose exit code 1 is an answer."""
