"""Write the bill of materials (CycloneDX 1.6): what the packages hold that others wrote.

Run as `python .ci/sbom.py FILE`, with the commit's time in SOURCE_DATE_EPOCH: the same commit gives
the same bytes. Each folder `vendor/NAME` of a package holds files as its authors
published them, their licence, and `package.json` or the like with name, version and licence.
"""

import hashlib
import json
import os
import sys
import tomllib
import uuid
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[1]


def component_file(path: Path) -> Component:
    """One file as it lies in the package."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = path.relative_to(ROOT).as_posix()
    return Component(
        type=ComponentType.FILE,
        name=name,
        bom_ref=name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )


def vendored(folder: Path) -> Component:
    """A package of others, with its files."""
    facts = json.loads((folder / "package.json").read_text())
    found = Component(
        type=ComponentType.LIBRARY,
        name=facts["name"],
        version=facts["version"],
        purl=PackageURL("npm", name=facts["name"], version=facts["version"]),
        bom_ref=f"{facts['name']}@{facts['version']}",
        licenses=[DisjunctiveLicense(id=facts["license"])],
    )
    files = sorted(path for path in folder.iterdir() if path.name != "package.json")
    found.components.update(component_file(path) for path in files)
    return found


def bill() -> Bom:
    """This project, and all that is vendored in it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = Component(
        type=ComponentType.APPLICATION,
        name=project["name"],
        version=project["version"],
        bom_ref=f"{project['name']}@{project['version']}",
        licenses=[DisjunctiveLicense(id=project["license"])],
    )
    parts = [
        vendored(facts.parent)
        for package in ("fpr", "emulator", "guest_model", "host_model")
        for facts in sorted((ROOT / package).glob("**/vendor/*/package.json"))
    ]
    commit_s = int(os.environ["SOURCE_DATE_EPOCH"])
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"{own.bom_ref} {commit_s}")
    bom = Bom(components=parts, serial_number=serial)
    bom.metadata.timestamp = datetime.fromtimestamp(commit_s, UTC)
    bom.metadata.component = own
    bom.register_dependency(own, parts)
    return bom


def main() -> int:
    """Command line of this script."""
    text = JsonV1Dot6(bill()).output_as_string(indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        print(f"the bill of materials is not valid: {error}", file=sys.stderr)
        return 70
    Path(sys.argv[1]).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
