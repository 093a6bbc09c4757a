"""The files of docker/ and mlflow/ by themselves: valid, complete, explained, closed."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import deployment
import pytest
import yaml
from deployment import DOCKER, MLFLOW, ROOT, services
from typer.main import get_command

from nightshift.cli import app
from nightshift.security import signing

DOCKERFILES = (DOCKER / "Dockerfile", MLFLOW / "Dockerfile")
TEXTS = sorted(path for folder in (DOCKER, MLFLOW) for path in folder.iterdir() if path.is_file())
JOBS = {"migrate", "provision", "cli"}  # they end
STORES = {"postgres", "valkey", "s3"}


def program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def passes(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deployment.make_secrets(tmp_path_factory.mktemp("made") / "secrets")


def test_the_compose_file_fulfils_the_specification():
    passes(program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml")


def test_compose_itself_accepts_the_file(tmp_path):
    found = shutil.which("docker")
    if not found or subprocess.run([found, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    every = ",".join(
        sorted({profile for about in services().values() for profile in about.get("profiles", [])})
    )
    files = ("--file", "docker/compose.yaml", "--env-file", "docker/.env.example")
    passes("env", f"COMPOSE_PROFILES={every}", found, "compose", *files, "config", "--quiet")
    done = subprocess.run(
        [found, "compose", "--file", "docker/compose.yaml", "--env-file", "/dev/null", "config", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "run make-secrets.sh" in done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_dockerfiles_have_no_findings(path):
    passes(program("hadolint"), str(path))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_is_copied_into_an_image_is_there_and_is_sent_to_the_builder(path):
    sent = set(re.findall(r"(?m)^!(\S+)", (ROOT / ".dockerignore").read_text(encoding="utf-8")))
    copied = re.findall(r"(?m)^COPY (?!--from)(?:--\S+ )*(.+) \S+$", path.read_text(encoding="utf-8"))
    assert len(copied) >= 3
    for source in (name for line in copied for name in line.split()):
        assert (ROOT / source).exists(), source
        assert {source, source.split("/")[0]} & sent, source


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_runs_as_a_user_and_has_no_builder_in_it(path):
    text = path.read_text(encoding="utf-8")
    stages = re.split(r"(?m)^FROM ", text)[1:]
    final = [stage for stage in stages if re.search(r"(?m)^USER ", stage)]
    assert len(final) == (2 if path.parent == DOCKER else 1)
    for stage in final:
        assert re.findall(r"(?m)^USER (.+)", stage)[-1] == "50000:0"
        assert "pip" not in stage
    assert not re.search(r"apt-get|build-essential|gcc", text)
    assert "://" not in text  # no package index is named


def test_every_variable_is_explained_and_every_explained_one_is_used():
    used = {}
    for path in (DOCKER / "compose.yaml", *DOCKER.glob("*.env")):
        for name, kind, default in deployment.REFERENCE.findall(path.read_text(encoding="utf-8")):
            assert used.setdefault(name, default) in (default, "") or not kind, f"{name} has two defaults"
            used[name] = default if kind == "-" else used[name]
    explained = deployment.example()
    assert set(used) | {"COMPOSE_PROFILES"} == set(explained)
    for name, default in used.items():
        assert explained[name] == default or name == "NIGHTSHIFT_SECRETS", name
    blocks = (DOCKER / ".env.example").read_text(encoding="utf-8").strip().split("\n\n")
    assert all(block.startswith("# ") for block in blocks)


def test_the_profiles_that_are_on_at_first_exist():
    known = {profile for about in services().values() for profile in about.get("profiles", [])}
    assert set(deployment.example()["COMPOSE_PROFILES"].split(",")) == {"stores", "cpu"}
    assert known == {"stores", "cpu", "gpu", "serve", "metrics", "cli"}


def test_every_secret_is_made_by_the_script_and_mounted_somewhere(secrets):
    mounted = {name for about in services().values() for name in about.get("secrets", [])}
    assert mounted == set(deployment.compose()["secrets"]) == {path.name for path in secrets.iterdir()}


def test_every_secret_that_a_service_names_is_mounted_there():
    for name, about in services().items():
        text = str(deployment.environment(name)) + str(about.get("command")) + str(about.get("healthcheck"))
        named = set(re.findall(r"/run/secrets/([\w.]+)", text))
        assert named <= set(about.get("secrets", [])), name


def test_secrets_are_closed_kept_and_all_different(secrets):
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    deployment.make_secrets(secrets)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o444}
    assert len(set(before.values())) == len(before)
    assert all(len(value) >= 20 for value in before.values())


def test_a_secret_of_ones_own_is_kept_and_the_rest_is_made_to_fit(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "s3_access_key").write_text("of-a-managed-service")
    (tmp_path / "own" / "postgres_password").write_text("chosen")
    made = deployment.make_secrets(tmp_path / "own")
    assert yaml.safe_load((made / "s3.json").read_text())["identities"][0]["credentials"][0]["accessKey"] == (
        "of-a-managed-service"
    )
    assert ":chosen@postgres:5432/mlflow" in (made / "mlflow_database_url").read_text()


def test_the_made_keys_sign_and_are_trusted(secrets, monkeypatch):
    monkeypatch.setenv(signing.SIGNING_KEY, str(secrets / "signing_key"))
    monkeypatch.setenv(signing.PUBLIC_KEYS, str(secrets / "public_key"))
    signer = signing.signer()
    assert signer is not None
    assert [key.fingerprint for key in signing.trusted_keys()] == [signer.fingerprint]


def test_no_password_stands_in_a_file():
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"://[^\s/$@]*:[^\s/$@]+@", text), path
        for name, value in re.findall(r"(\w*(?:PASSWORD|SECRET|TOKEN|_KEY)\w*)[=:] *(\S+)", text):
            file = name.endswith(("_FILE", "_CMD", "_KEYS", "_SIGNING_KEY", "NIGHTSHIFT_SECRETS"))
            assert file or value.startswith(("$", '"$')), f"{path}: {name}"


@pytest.mark.parametrize("name", services())
def test_each_service_is_limited_restarted_and_asked_how_it_is(name):
    about = services()[name]
    limits = about["deploy"]["resources"]["limits"]
    assert {"cpus", "memory"} <= set(limits)
    assert about["restart"] == ({"cli": "no"}.get(name, "on-failure:3") if name in JOBS else "unless-stopped")
    assert ("healthcheck" in about and "test" in about["healthcheck"]) != (name in JOBS)
    assert about["logging"]["options"]["max-size"]
    assert "no-new-privileges:true" in about["security_opt"]
    if name not in STORES:
        assert about["cap_drop"] == ["ALL"]


def test_only_four_services_are_published_and_on_loopback_unless_told():
    ports = {name: about["ports"] for name, about in services().items() if "ports" in about}
    assert set(ports) == {"api-server", "mlflow", "serve", "metrics"}
    for (port,) in ports.values():
        assert deployment.interpolated(port).startswith("127.0.0.1:")


def test_workers_and_commands_reach_neither_the_database_nor_the_servers_secrets():
    kept = {"airflow_database_url", "fernet_key", "jwt_secret", "api_secret_key", "mlflow_admin_password"}
    for name, about in services().items():
        if name.startswith("worker") or name in ("serve", "metrics", "cli"):
            assert "database" not in about["networks"], name
            assert not kept & set(about["secrets"]), name
            assert not {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD"} & set(deployment.environment(name)), name
    signers = [name for name, about in services().items() if "signing_key" in about.get("secrets", [])]
    assert signers == ["worker"]
    networks = deployment.compose()["networks"]
    assert networks["stores"]["internal"]
    assert networks["database"]["internal"]


def test_the_guides_commands_name_files_and_verbs_that_exist():
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    section = page.split("\n## Your own ")[0]
    for name in re.findall(r"\bdocker/[\w.-]+", section):
        assert (ROOT / name).exists() or name in ("docker/secrets", "docker/.env"), name
    calls = re.findall(r"docker compose run (?:--\S+ (?:\S+:\S+ )?)*cli (\w+)([^\n]*)", section)
    assert [verb for verb, _ in calls] == ["ingest", "run"]
    verbs = get_command(app).commands
    for verb, rest in calls:
        known = {option for parameter in verbs[verb].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, verb
    verbs_of_compose = set(re.findall(r"docker compose (\w+)", section))
    assert verbs_of_compose == {"build", "up", "ps", "run"}


def run_with_secrets(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(DOCKER / "with-secrets.sh"), "env"],
        env={"PATH": "/usr/bin:/bin"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_entry_point_hands_secrets_on(secrets):
    done = run_with_secrets({"AWS_SECRET_ACCESS_KEY_FILE": str(secrets / "s3_secret_key")})
    assert f"AWS_SECRET_ACCESS_KEY={(secrets / 's3_secret_key').read_text()}\n" in done.stdout
    assert "\nMLFLOW_TRACKING_PASSWORD=" not in done.stdout


def test_the_entry_point_says_which_secret_is_missing(tmp_path):
    done = run_with_secrets({"AWS_ACCESS_KEY_ID_FILE": f"{tmp_path}/s3_access_key"})
    assert done.returncode == 1
    assert f"the secret {tmp_path}/s3_access_key of AWS_ACCESS_KEY_ID is missing" in done.stderr
    assert not done.stdout


def test_every_variable_from_a_file_is_known_to_the_entry_point():
    script = (DOCKER / "with-secrets.sh").read_text(encoding="utf-8")
    files = {
        name for service in services() for name in deployment.environment(service) if name.endswith("_FILE")
    }
    ours = {name.removesuffix("_FILE") for name in files - {"POSTGRES_PASSWORD_FILE"}}
    assert ours == set(
        re.findall(r"\b(?:AIRFLOW|AWS|MLFLOW|NIGHTSHIFT)_\w+\b", script.split("do\n")[0].split("for name")[1])
    )
