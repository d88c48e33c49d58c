"""The bill of materials of a package: CycloneDX 1.5, from its lock and the metadata of what was installed."""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from archive import Control
from licences import Distribution
from locks import Locked

SPEC_VERSION: Final = "1.5"


def bill_of_materials(control: Control, locked: list[Locked], distributions: list[Distribution]) -> str:
    """The JSON text. Every wheel of the lock is a component, with the SHA-256 of the wheel that was unpacked.

    Raises:
        SystemExit: when the lock and what is installed are not the same.
    """
    installed = {found.name: found for found in distributions}
    own = installed.pop("bedside")
    if {(entry.name, entry.version) for entry in locked} != {(name, it.version) for name, it in installed.items()}:
        raise SystemExit(f"{control.fields['Package']}: what is installed is not what the lock names")
    package, version, arch = (control.fields[name] for name in ("Package", "Version", "Architecture"))
    purl = f"pkg:deb/debian/{package}@{version}?arch={arch}"
    components = [_component(entry, installed[entry.name]) for entry in locked]
    references = [component["bom-ref"] for component in components]
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        # Of the content, so that the same build has the same number.
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, purl + ''.join(entry.sha256 for entry in locked))}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": purl,
                "name": package,
                "version": version,
                "purl": purl,
                "licenses": [{"expression": own.licence}],
            }
        },
        "components": components,
        "dependencies": [{"ref": purl, "dependsOn": references}],
    }
    return json.dumps(document, indent=1) + "\n"


def _component(entry: Locked, found: Distribution) -> dict[str, Any]:
    purl = f"pkg:pypi/{entry.name}@{entry.version}"
    # An expression is written in SPDX's identifiers; what is not one stays a name.
    licence = {"license": {"name": found.licence}}
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": entry.name,
        "version": entry.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
        "licenses": [licence],
    }
    if found.home.startswith("https://"):
        component["externalReferences"] = [{"type": "website", "url": found.home}]
    return component
