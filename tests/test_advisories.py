"""No version that a known advisory names gets into the lock file again, and careless code gets nowhere."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.version import Version

ROOT = Path(__file__).parent.parent
RUFF = str(Path(sys.executable).with_name("ruff"))


class Floor(NamedTuple):
    """The first version without what an advisory tells of, and where that version was read."""

    package: str
    version: str
    advisory: str
    source: str
    what: str


FLOORS = [
    # What strangers' files and requests reach.
    Floor("pillow", "12.3.0", "CVE-2026-59199", "osv.dev/BIT-pillow-2026-59199", "heap write by coordinates"),
    Floor("pillow", "12.3.0", "CVE-2026-59204", "vladkesler/initrunner v2026.7.5", "JPEG 2000 eats memory"),
    Floor(
        "opencv-python-headless", "4.8.1.78", "CVE-2023-4863", "GHSA-qr4w-53vh-m672", "WebP writes the heap"
    ),
    Floor(
        "opencv-python-headless",
        "4.12.0",
        "CVE-2025-53644",
        "cve.org, GHSL-2025-057",
        "a JPEG writes the heap",
    ),
    Floor("onnx", "1.21.0", "CVE-2026-27489", "PYSEC-2026-2239", "external data reads any file"),
    Floor("onnx", "1.21.0", "CVE-2026-49114", "CISA VA-26-233-01", "external data writes through links"),
    Floor("pyarrow", "14.0.1", "CVE-2023-47248", "PYSEC-2023-238", "Parquet runs code"),
    Floor(
        "python-multipart", "0.0.27", "CVE-2026-42561", "ubuntu.com/security", "headers of a form eat time"
    ),
    Floor("python-multipart", "0.0.22", "CVE-2026-24486", "GHSA-wp53-j4wj-2cfg", "a form writes any file"),
    Floor("starlette", "1.3.1", "CVE-2026-54283", "GHSA-82w8-qh3p-5jfq", "a form eats memory"),
    Floor("starlette", "0.47.2", "CVE-2025-54121", "osv.dev/CVE-2025-54121", "large files block the server"),
    Floor("h11", "0.16.0", "CVE-2025-43859", "GHSA-vqfr-h8mv-ghfj", "smuggled requests"),
    # Weights and models.
    Floor("torch", "2.6.0", "CVE-2025-32434", "GHSA-53q9-r3pm-6pq6", "weights_only runs code"),
    Floor("torch", "2.10.0", "CVE-2026-24747", "GHSA-63cw-57p8-fm3p", "weights_only writes memory"),
    Floor("mlflow", "3.11.0", "CVE-2026-2651", "cve.org/CVE-2026-2651", "uploads in parts pass the login"),
    Floor("mlflow", "3.11.0", "CVE-2026-4137", "cve.org/CVE-2026-4137", "downloads in folders open to all"),
    Floor("mlflow", "3.16.1", "CVE-2026-2635", "github/advisory-database#9438", "a default password"),
    # What carries logins.
    Floor(
        "apache-airflow", "3.3.2", "CVE-2026-82355", "cve.org/CVE-2026-82355", "a cookie wins over a token"
    ),
    Floor("urllib3", "2.6.3", "CVE-2026-21441", "GHSA-38jv-5279-wg99", "redirects unpack bombs"),
    Floor("requests", "2.32.4", "CVE-2024-47081", "psf/requests#6965", "logins go to other hosts"),
    Floor("aiohttp", "3.14.3", "CVE-2026-69243", "GHSA-mfx4-hv73-q22v", "smuggled requests"),
    Floor("jinja2", "3.1.6", "CVE-2025-27516", "GHSA-cpwx-vrp4-4pq7", "templates leave their box"),
    Floor("cryptography", "50.0.0", "CVE-2026-69247", "GHSA-g6cj-pr64-35w5", "PKCS#7 tells of its padding"),
    Floor("pyopenssl", "26.0.0", "CVE-2026-27459", "openwrt/packages#28977", "DTLS cookies overflow"),
    Floor("pyasn1", "0.6.4", "CVE-2026-59885", "vladkesler/initrunner v2026.7.5", "identifiers eat time"),
]
LOCKED = {
    line.partition("==")[0].partition("[")[0]: Version(line.partition("==")[2].split()[0])
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if "==" in line and not line.lstrip().startswith("#")
}


@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: f"{floor.package}-{floor.advisory}")
def test_the_lock_is_above_what_an_advisory_names(floor: Floor) -> None:
    assert LOCKED[floor.package] >= Version(floor.version), f"{floor.advisory}: {floor.what} ({floor.source})"


CARELESS = {
    "S602": "import subprocess\nsubprocess.run('ls ' + input(), shell=True, check=True)\n",
    "S605": "import os\nos.system('ls ' + input())\n",
    "S307": "eval(input())\n",
    "S102": "exec(input())\n",
    "S301": "import pickle\npickle.loads(input().encode())\n",
    "S506": "import yaml\nyaml.load(input())\n",
    "S202": "import tarfile\ntarfile.open(input()).extractall()\n",
    "S701": "import jinja2\njinja2.Environment()\n",
    "S105": "password = 'hunter2'\n",
    "S108": "path = '/tmp/known'\n",
    "S314": "import xml.etree.ElementTree as tree\ntree.fromstring(input())\n",
    "S310": "import urllib.request\nurllib.request.urlopen(input())\n",
}


@pytest.mark.parametrize("rule", CARELESS)
def test_careless_code_in_the_package_or_the_dags_is_refused(rule: str) -> None:
    """By the project's own settings, which continuous integration checks all files with."""
    for place in ("tasks/nightshift/x.py", "dags/x.py"):
        command = [RUFF, "check", "--output-format=concise", "--stdin-filename", place, "-"]
        done = subprocess.run(
            command, cwd=ROOT, input=CARELESS[rule], capture_output=True, text=True, check=False
        )
        assert f" {rule} " in done.stdout, done.stdout + done.stderr


def sources() -> list[Path]:
    return [*(ROOT / "tasks" / "nightshift").rglob("*.py"), *(ROOT / "dags").rglob("*.py")]


def test_exceptions_to_the_rules_are_few_and_known() -> None:
    """By file and rule; another one is a decision."""
    found = {
        (str(path.relative_to(ROOT)), rule)
        for path in sources()
        for silenced in re.findall(r"# noqa: ([A-Z0-9, ]+)", path.read_text(encoding="utf-8"))
        for rule in re.findall(r"S\d+", silenced)
    }
    assert found == {
        ("tasks/nightshift/quantization/calibration.py", "S101"),
        ("tasks/nightshift/stack/http_client.py", "S310"),  # the addresses that a person's own variables name
        (
            "tasks/nightshift/data/decoding/pool.py",
            "S301",
        ),  # frames between a stage and the decoders that it started
        ("tasks/nightshift/storage/connection.py", "S105"),  # names of variables
        ("tasks/nightshift/security/signing.py", "S105"),
    }


def test_nothing_that_is_loaded_may_be_a_pickle() -> None:
    """Which ruff has no rule for that is not a preview."""
    loose = re.compile(
        r"torch\.load\(|allow_pickle=True|weights_only=False|joblib\.(?:load|dump|Memory)|cloudpickle|shelve|marshal"
    )
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sources()}
    assert {path: loose.findall(text) for path, text in texts.items() if loose.findall(text)} == {}
