"""What is installed where models are made, as a bill of materials: CycloneDX, made by cyclonedx-bom."""

import json
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

from nightshift.errors import NightshiftError


def sbom() -> bytes:
    """All packages of this interpreter with versions, licences and dependencies, CycloneDX 1.6 in JSON.

    The same for the same packages: no time, no path of this machine, no credentials. Raises NightshiftError
    when the tool fails.
    """
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--short-PURLs"]
    # Validating takes 15 s of 16 for 300 packages; a test does it for a few.
    done = subprocess.run(
        [*command, "--no-validate", "--output-format", "JSON", sys.executable],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise NightshiftError(
            f"the bill of materials cannot be made ({said[-1] if said else done.returncode}); install "
            "cyclonedx-bom, which is in nightshift-ml[train]"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    _without_doubles(found)
    for component in found.get("components", ()):
        kept = [_public(each) for each in component.pop("externalReferences", ())]
        if references := [each for each in kept if each]:
            component["externalReferences"] = references
    return json.dumps(found, indent=1).encode()


def _without_doubles(found: dict[str, Any]) -> None:
    """Leave each package once: an editable install has metadata in its folder too."""
    doubles = {
        component["bom-ref"]
        for component in found.get("components", ())
        if component["bom-ref"] != f"{component['name']}=={component['version']}"
    }
    for part, key in (("components", "bom-ref"), ("dependencies", "ref")):
        if part in found:
            found[part] = [each for each in found[part] if each[key] not in doubles]


def _public(reference: dict[str, Any]) -> dict[str, Any] | None:
    """A reference without what it tells of this machine: its folders, and logins and tokens of an index."""
    parts = urlsplit(reference["url"])
    if parts.scheme.endswith("file"):
        return None
    installed_from = reference.get("comment", "").startswith("PackageSource")
    host = parts.netloc.rpartition("@")[2]
    return {
        **reference,
        "url": parts._replace(netloc=host, query="" if installed_from else parts.query).geturl(),
    }
