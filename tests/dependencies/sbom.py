"""`make sbom`: a CycloneDX 1.6 bill of materials of what keywatch needs, out of the installed metadata."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

from tests.dependencies.installed import ROOT, Needed, needed


def bill() -> dict[str, Any]:
    """The document; the same for the same environment, so without a serial number and a time."""
    parts = needed()
    direct = {"ref": ROOT, "dependsOn": [_ref(part) for part in parts]}
    known = {part.name: part for part in parts}
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": ROOT, "name": ROOT, "version": version(ROOT)}},
        "components": [_component(part) for part in parts],
        "dependencies": [direct, *({"ref": _ref(part), "dependsOn": [_ref(known[n]) for n in part.needs if n in known]}
                                   for part in parts)],
    }  # fmt: skip


def _ref(part: Needed) -> str:
    return f"pkg:pypi/{part.name}@{part.version}"


def _component(part: Needed) -> dict[str, Any]:
    return {
        "type": "library", "bom-ref": _ref(part), "name": part.name, "version": part.version, "purl": _ref(part),
        "scope": "required" if part.scope == "required" else "optional",
        "licenses": [{"license": {"name": name}} for name in part.licences],
        "properties": [{"name": "keywatch:extra", "value": part.scope}],
    }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bill(), indent=1) + "\n")
