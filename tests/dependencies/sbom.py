"""`make sbom`: a CycloneDX 1.6 bill of materials, out of the installed metadata and what the console brings along."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

from tests.console.vendored import Part, vendored
from tests.dependencies.installed import ROOT, Needed, needed


def bill() -> dict[str, Any]:
    """The document; the same for the same environment, so without a serial number and a time."""
    parts = needed()
    brought = [_brought(part) for part in vendored()]
    direct = {"ref": ROOT, "dependsOn": [*map(_ref, parts), *(each["bom-ref"] for each in brought)]}
    known = {part.name: part for part in parts}
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": ROOT, "name": ROOT, "version": version(ROOT)}},
        "components": [*map(_component, parts), *brought],
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


def _brought(part: Part) -> dict[str, Any]:
    """What the console serves to browsers: in our package itself, so with the digests of its files."""
    reference = f"pkg:npm/{part.name}@{part.version}"
    files = [
        {"type": "file", "bom-ref": f"{reference}#{each.name}", "name": each.name,
         "hashes": [{"alg": "SHA-256", "content": each.sha256}]}
        for each in part.files
    ]  # fmt: skip
    return {
        "type": "library", "bom-ref": reference, "name": part.name, "version": part.version, "purl": reference,
        "scope": "required", "licenses": [{"license": {"id": part.licence}}], "components": files,
        "properties": [{"name": "keywatch:vendored", "value": "pipeline/console/static/vendor"}],
    }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bill(), indent=1) + "\n")
