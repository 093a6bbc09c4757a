"""From the standard variables to a connected bucket, seen by what a server is asked."""

import os
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_s3 import Server, server
from test_storage import KEY, SECRET, free_port, use_endpoint
from waiting import patience, wait_for_port

from nightshift import storage
from nightshift.cli.checks import store
from nightshift.errors import InputError, OutageError

__all__ = ["server"]  # a fixture


def test_the_variables_say_where_who_and_in_which_region(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    assert storage.exists("s3://test/a")
    assert server.lines == ["HEAD /test/a"]
    assert "Credential=nightshift-test/" in server.headers[0]["authorization"]
    assert "/eu-west-3/s3/" in server.headers[0]["authorization"]
    assert server.headers[0]["x-amz-security-token"] == "session"


def test_the_general_endpoint_is_used_where_there_is_none_for_s3(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "")
    assert storage.exists("s3://test/a")
    assert "/eu-west-1/s3/" in server.headers[0]["authorization"]
    assert "x-amz-security-token" not in server.headers[0]


def test_a_change_of_the_environment_is_noticed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.exists("s3://test/a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another-key")
    assert storage.exists("s3://test/a")
    keys = [each["authorization"].partition("Credential=")[2].partition("/")[0] for each in server.headers]
    assert keys == ["nightshift-test", "another-key"]


def test_a_profile_says_who_and_where(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(f"[profile mill]\nregion = eu-north-1\nendpoint_url = {server.url}\n")
    (tmp_path / "keys").write_text("[mill]\naws_access_key_id = mill-key\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_PROFILE", "mill")
    assert storage.exists("s3://test/a")
    assert "Credential=mill-key/" in server.headers[0]["authorization"]
    assert "/eu-north-1/s3/" in server.headers[0]["authorization"]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"{server.url}/")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert storage.exists("s3://test/a")
    assert server.lines == ["HEAD /test/a"] * 2
    assert "/eu-west-2/s3/" in server.headers[1]["authorization"]
    monkeypatch.setenv("AWS_PROFILE", "none")
    with pytest.raises(InputError, match=r"cannot be asked for s3://test .*none.* could not be found"):
        storage.exists("s3://test/a")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("AWS_ENDPOINT_URL_S3", "localhost:9000", "it must look like http://host:9000 or https://host"),
        ("AWS_ENDPOINT_URL_S3", "http://localhost:99999", "it must look like http://host:9000"),
        ("AWS_ACCESS_KEY_ID", "key\n", "AWS_ACCESS_KEY_ID has spaces, line ends or"),
        ("AWS_SESSION_TOKEN", "a b", "AWS_SESSION_TOKEN has spaces"),
        ("AWS_SECRET_ACCESS_KEY", "", r"cannot be asked .*AWS_SECRET_ACCESS_KEY is not set"),
        ("AWS_CA_BUNDLE", "/nowhere.pem", "AWS_CA_BUNDLE is '/nowhere.pem', which cannot be read"),
        ("AWS_CA_BUNDLE", __file__, "cannot be asked for s3://test .No certificates found"),
        ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "yes", "it must be true or false"),
        ("AWS_MAX_ATTEMPTS", "many", "AWS_MAX_ATTEMPTS is 'many'; it must be a whole number from 1"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=sentence):
        storage.read("s3://test/a")
    assert server.lines == []


def test_a_fork_of_a_process_that_used_s3_is_refused_instead_of_waiting_for_ever(server: Server) -> None:
    code = (
        "import os, signal\nfrom nightshift import storage\nassert storage.exists('s3://test/a')\n"
        "if os.fork():\n    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        f"signal.alarm({patience(20):.0f})\n"
        "try:\n    storage.exists('s3://test/a')\nexcept RuntimeError as error:\n"
        "    os._exit(7 if 'spawn the process instead' in str(error) else 8)\nos._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=patience(60), check=False).returncode == 7


def test_boto3_is_not_imported_where_the_variables_say_all(server: Server) -> None:
    code = (
        "import sys\nfrom nightshift import storage\nassert storage.exists('s3://test/a')\n"
        "print({'boto3', 'botocore'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def write_certificates(folder: Path) -> None:
    """An authority in `ca.pem`; in `server.pem` the certificate that it signed for 127.0.0.1, and its key."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca, name = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in ("ca", "server"))
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = {}
    for subject, public, extension in (
        (ca, ca_key.public_key(), x509.BasicConstraints(ca=True, path_length=None)),
        (name, key.public_key(), address),
    ):
        certificate = x509.CertificateBuilder(ca, subject, public, x509.random_serial_number())
        start = datetime.now(UTC) - timedelta(hours=1)
        certificate = certificate.not_valid_before(start).not_valid_after(start + timedelta(days=1))
        signed = certificate.add_extension(extension, critical=True).sign(ca_key, hashes.SHA256())
        made[subject] = signed.public_bytes(serialization.Encoding.PEM)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "ca.pem").write_bytes(made[ca])
    (folder / "server.pem").write_bytes(made[name] + key.private_bytes(*form))


def test_a_private_authority_is_trusted_where_it_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url.replace("http:", "https:"))
    with pytest.raises(InputError, match="has a certificate that is not trusted; set AWS_CA_BUNDLE"):
        storage.exists("s3://test/a")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    assert storage.exists("s3://test/a")


def test_the_bucket_goes_into_the_path_or_on_request_into_the_host(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stands for the proxy here: what it is asked names the host."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.example:9000")
    assert storage.exists("s3://test/a")
    list(storage.uploads("s3://test/a"))
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    assert storage.exists("s3://test/a")
    list(storage.uploads("s3://test/a"))
    assert [line.partition("?")[0] for line in server.lines] == [
        "HEAD http://s3.example:9000/test/a",
        "GET http://s3.example:9000/test",
        "HEAD http://test.s3.example:9000/a",
        "GET http://test.s3.example:9000/",
    ]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    with pytest.raises(InputError, match="has no name that test can stand before; unset it"):
        storage.exists("s3://test/a")


def test_checksums_are_sent_where_they_are_asked_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write("s3://test/a", b"x")
    monkeypatch.setenv("AWS_CHECKSUM_ALGORITHM", "SHA256")
    storage.write("s3://test/a", b"x")
    boto3.Session().client("s3").put_object(Bucket="test", Key="b", Body=b"x")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    boto3.Session().client("s3").put_object(Bucket="test", Key="b", Body=b"x")
    sent = [{name for name in each if name.startswith("x-amz-checksum")} for each in server.headers]
    assert sent == [set(), {"x-amz-checksum-sha256"}, {"x-amz-checksum-crc32"}, set()]


@pytest.fixture
def behind_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The authority of a real S3 server with the bucket `test` that speaks TLS only."""
    write_certificates(tmp_path)
    (tmp_path / "data" / "test").mkdir(parents=True)
    port, rclone = free_port(), Path(sysconfig.get_path("scripts")) / "rclone"
    pem, environment = str(tmp_path / "server.pem"), {"RCLONE_AUTH_KEY": f'"{KEY},{SECRET}"'}
    command = (
        *(str(rclone), "serve", "s3", str(tmp_path / "data"), "--addr", f"127.0.0.1:{port}"),
        *("--cert", pem, "--key", pem),
    )
    quiet = {"RCLONE_CONFIG": os.devnull}
    with subprocess.Popen(command, env=os.environ | environment | quiet, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for_port(port)
            use_endpoint(f"https://127.0.0.1:{port}", monkeypatch)
            yield tmp_path / "ca.pem"
        finally:
            server.terminate()


def test_obstore_boto3_and_the_doctor_trust_the_private_authority_of_a_real_server(
    behind_tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STORE", "s3://test")
    with pytest.raises(InputError, match="has a certificate that is not trusted"):
        storage.write("s3://test/a", b"x")
    with pytest.raises(OutageError, match="certificate"):
        list(storage.uploads("s3://test"))
    with pytest.raises(OutageError, match="its certificate is not trusted"):
        list(store.store())
    monkeypatch.setenv("AWS_CA_BUNDLE", str(behind_tls))
    storage.write("s3://test/a", b"x")
    storage.abort("s3://test/a", storage.begin("s3://test/a"))
    assert list(storage.uploads("s3://test")) == []
    (wrong,) = [finding.sentence for finding in store.store() if finding.good is False]
    assert "refuses what boto3 writes" in wrong  # behind TLS it sends a checksum that rclone does not know
    assert "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required for it and for MLflow" in wrong
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    assert [finding.sentence for finding in store.store() if finding.good is False] == []
