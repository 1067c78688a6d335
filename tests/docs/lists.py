"""Which commands of the documents are run, which are only parsed and why, and which programs are not ours."""

from __future__ import annotations

from typing import Final, NamedTuple

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
    "top --once", "intake kong.jsonl --format kong",
)  # fmt: skip
"""Run, too: sentences name them, and they need nobody's answer."""


class Elsewhere(NamedTuple):
    """Why a command is not run here, the test that does it, and what stands in that test."""

    why: str
    test: str
    words: str


DEMO: Final = "tests/deploy/test_on_demo.py"
SERVED: Final = Elsewhere("runs until it is stopped; the demo runs it", DEMO, "SERVED")
SPOKEN: Final = Elsewhere("a worker or responder answers; it is run on the demo's", DEMO, "SPOKEN")
DESK: Final = "tests/pipeline/respond/night/test_desk.py"
RESPOND: Final = "tests/pipeline/respond/test_commands.py"
LONG: Final = "takes minutes"
OFFSETS: Final = "needs a broker whose offsets are right"
STATE: Final = "tests/kafka/test_partition_change.py"
PARSED: Final = {
    "console": SERVED, "respond": SERVED, "worker": SERVED,
    "intake": Elsewhere("runs until it is stopped; with a file it is run here", DEMO, 'lines("intake")'),
    "plugin": Elsewhere("runs until it is stopped", "tests/pipeline/test_beside_production.py", '"plugin", "--config"'),
    "top": Elsewhere(
        "runs until it is stopped; --once is run", "tests/pipeline/asking/test_top.py", "top.main(filled, False"
    ),
    "feedback": SPOKEN, "mute": SPOKEN, "plan": SPOKEN, "cases ack": SPOKEN, "respond act": SPOKEN,
    "respond undo": SPOKEN, "respond raise": SPOKEN, "respond approve": SPOKEN, "respond promote": SPOKEN,
    "unmute": Elsewhere(SPOKEN.why, DEMO, 'run("unmute"'),
    "cases assign": Elsewhere(SPOKEN.why, DEMO, 'run("cases", "assign"'),
    "cases snooze": Elsewhere(SPOKEN.why, DEMO, 'run("cases", "snooze"'),
    "cases close": Elsewhere(SPOKEN.why, DEMO, 'run("cases", "close"'),
    "respond refuse": Elsewhere(SPOKEN.why, DEMO, 'run("respond", "refuse"'),
    "respond bulk": Elsewhere("nothing waits in the demo", RESPOND, "commands.bulk("),
    "respond extend": Elsewhere("no key is rotated by the demo's responder", RESPOND, "commands.extend("),
    "respond enable": Elsewhere("no endpoint of the demo is disabled", DESK, "night_desk.enable("),
    "respond deleted": Elsewhere(
        "no gateway of the demo keeps keys",
        "tests/pipeline/respond/rotation/test_leftovers.py",
        "leftover_desk.deleted(",
    ),
    "drill run": Elsewhere(
        "the demo has no decoy", "tests/pipeline/respond/test_drill_whole.py", "night_desk.drilled("
    ),
    "leaks hash": Elsewhere("reads a secret from stdin", "tests/pipeline/keys/test_leaks.py", "print_hash("),
    "bench": Elsewhere(LONG + "; its peers are run", "tests/kafka/test_bench.py", "peers.PEERS"),
    "demo": Elsewhere(LONG, DEMO, '"pipeline.cli.main", "demo"'),
    "evaluate keybench": Elsewhere(LONG, "tests/evaluation/test_keybench.py", "keybench.bench("),
    "evaluate nab": Elsewhere(LONG, "tests/evaluation/test_nab.py", "nab.main("),
    "learn": Elsewhere(OFFSETS, "tests/kafka/test_operating.py", "learn(primed.config, "),
    "state export": Elsewhere(OFFSETS, STATE, "export_state.main("),
    "state import": Elsewhere(OFFSETS, STATE, "import_state.main("),
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
