"""The chart, rendered by `go_template`, or by Helm itself where it is installed."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema
import yaml

from tests.deploy.go_template import Files, Renderer

CHART: Final = Path(__file__).parents[2] / "deploy" / "helm" / "keywatch"
EVERYTHING: Final[dict[str, Any]] = {
    "kafka": {"security": "SASL_SSL", "ca": {"secretName": "kafka-ca"}},
    "clickhouse": {"url": "https://clickhouse:8443", "ca": {"secretName": "clickhouse-ca"}},
    "intake": {
        "enabled": True,
        "ingress": {"enabled": True, "host": "intake.example.com", "tlsSecretName": "intake-tls"},
    },
    "console": {
        "replicas": 2,
        "sessionKey": {"secretName": "keywatch-console"},
        "ingress": {"enabled": True, "host": "keywatch.example.com", "className": "public"},
        "httpRoute": {"enabled": True, "host": "keywatch.example.com", "parentRefs": [{"name": "edge"}]},
    },
    "responder": {"serviceAccount": {"annotations": {"role": "keywatch"}}, "priorityClassName": "important"},
    "drill": {"enabled": True, "url": "https://api.example.com/v1/me", "keyId": "key_decoy"},
    "extraVolumes": [{"name": "geo", "persistentVolumeClaim": {"claimName": "geo", "readOnly": True}}],
    "extraVolumeMounts": [{"name": "geo", "mountPath": "/geo", "readOnly": True}],
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "autoscaling": {"enabled": True, "authentication": "kafka-auth"},
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "kafkaTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "egress": {
            "responder": [{"port": 443}, {"port": 8001, "to": [{"podSelector": {"matchLabels": {"app": "kong"}}}]}],
            "intake": [{"port": 8081}, {"port": 443}],
        },
    },
    "serviceAccount": {"annotations": {"team": "platform"}},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "imagePullSecrets": [{"name": "registry"}],
    "podAnnotations": {"team": "platform"},
}
"""Values under which every object of the chart is made."""


def values(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The chart's values, some changed as Helm merges them (None takes away). Raises jsonschema.ValidationError."""
    merged: dict[str, Any] = _merged(yaml.safe_load((CHART / "values.yaml").read_text()), changes)
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(merged)
    return merged


def _merged(base: Any, changes: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(changes, Mapping)):
        return changes
    merged = base | {name: _merged(base.get(name), value) for name, value in changes.items()}
    return {name: value for name, value in merged.items() if value is not None}


def rendered(changes: Mapping[str, Any] | None = None, release: str = "keywatch") -> list[dict[str, Any]]:
    """All objects that an install makes."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    files = {str(path.relative_to(CHART)): path.read_text() for path in CHART.rglob("*") if path.is_file()}
    sources = {name: text for name, text in files.items() if name.startswith("templates/")}
    root = {
        "Values": values(changes or {}),
        "Chart": {key[:1].upper() + key[1:]: value for key, value in chart.items()},
        "Release": {"Name": release, "Namespace": "default", "Service": "Helm"},
        "Files": Files({name: text for name, text in files.items() if name not in sources}),
    }
    renderer = Renderer(sources)
    texts = [renderer.render(name, root) for name in sources if name.endswith(".yaml")]
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


def notes(changes: Mapping[str, Any]) -> str:
    """What an install says at its end."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    sources = {f"templates/{name}": (CHART / "templates" / name).read_text() for name in ("_helpers.tpl", "NOTES.txt")}
    root = {
        "Values": values(changes), "Chart": {"AppVersion": chart["appVersion"]},
        "Release": {"Name": "keywatch", "Namespace": "default", "Service": "Helm"},
    }  # fmt: skip
    return Renderer(sources).render("templates/NOTES.txt", root)


def by_helm(helm: str, changes: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The same by Helm itself."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(dict(changes)))
    command = [
        helm,
        "template",
        "keywatch",
        str(CHART),
        "--namespace",
        "default",
        "--values",
        str(file),
        "--kube-version",
        "1.31.0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]
