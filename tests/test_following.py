"""The endpoint over time: a new champion, one that cannot be used, none yet, and a faster runtime."""

import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from endpoints import client_of, facts, held, picture, promoted, refusal, registered, running
from mlflow_server import Door
from small_models import brightness, onnx_model
from waiting import wait_for

from nightshift.errors import InputError
from nightshift.inference import runtime
from nightshift.security import signing
from nightshift.serving import recent_images
from nightshift.tracking import registry, runs


def test_the_fastest_runtime_takes_over_when_enough_images_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recent_images, "LOOK", 32)
    monkeypatch.setattr(runtime, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(runtime, "installed", lambda: ("onnxruntime", runtime.EXACT, "openvino"))
    held(monkeypatch, lambda: time.sleep(0.05))  # the other one is the fastest
    path = tmp_path / "model.onnx"
    path.write_bytes(brightness())
    with running(str(path), runtime="auto", poll_seconds=600) as endpoint:
        many = [(f"{number}.png", picture(250 * (number % 2), ".png")) for number in range(33)]
        endpoint.form(*many[:31])
        assert endpoint.health()["runtime"] == "onnxruntime"
        endpoint.form(*many[31:])
        wait_for(lambda: endpoint.health()["runtime"] == "openvino")
        after = endpoint.form(*many).json()["predictions"]
    assert [each["label"] for each in after] == [("bright" if n % 2 else "dark") for n in range(33)]
    assert "event=runtime_chosen" in capfd.readouterr().err


def test_a_new_champion_takes_over_under_load_and_no_request_fails(registering: Door) -> None:
    first = promoted("light", "bright")
    answered: list[tuple[float, int, Any]] = []
    done = threading.Event()
    with running("models:/light@champion") as endpoint:

        def load() -> None:
            with client_of(endpoint.port) as client:
                while not done.is_set():
                    started = time.monotonic()
                    answer = client.post("/v1/predict", content=picture())
                    answered.append((started, answer.status_code, answer.json()))

        threads = [threading.Thread(target=load) for _ in range(6)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answered) > 50)
        second = promoted("light", "sunny", side=16)
        wait_for(lambda: endpoint.health()["version"] == second)
        swapped = time.monotonic()
        wait_for(lambda: sum(started > swapped for started, _, _ in answered) > 50)
        done.set()
        for thread in threads:
            thread.join()
        assert endpoint.meter('requests_total{status="200"}') == len(answered)
    assert {code for _, code, _ in answered} == {200}
    seen = {(each["model"]["version"], each["predictions"][0]["label"]) for _, _, each in answered}
    assert seen == {(first, "bright"), (second, "sunny")}
    assert {each["model"]["version"] for started, _, each in answered if started > swapped} == {second}


def test_a_version_that_cannot_be_trusted_or_loaded_leaves_the_old_one_serving(
    registering: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    unsigned = registered("light", "unsigned")
    signing.ensure_keys(tmp_path / "keys")
    monkeypatch.setenv(signing.PUBLIC_KEYS, str(tmp_path / "keys" / "signing.pub"))
    monkeypatch.setenv(signing.SIGNING_KEY, str(tmp_path / "keys" / "signing.key"))
    first = promoted("light")
    with running("models:/light@champion") as endpoint:
        assert endpoint.health()["following"] == "ok"
        registry.set_alias("light", "champion", unsigned)
        wait_for(lambda: "is not signed" in endpoint.health()["following"])
        promoted("light", "foreign", 4, onnx_model(1, classes=()))
        wait_for(lambda: "does not say its classes" in endpoint.health()["following"])
        answer = endpoint.predict(picture()).json()
        assert (answer["model"]["version"], answer["predictions"][0]["label"]) == (first, "bright")
        assert endpoint.meter("models_refused_total") == 2  # each is fetched once, not at every look
        good = promoted("light", "good")
        wait_for(lambda: endpoint.predict(picture()).json()["model"]["version"] == good)
        wait_for(lambda: endpoint.health()["following"] == "ok")
    said = [line for line in capfd.readouterr().err.splitlines() if "event=not_followed" in line]
    assert len(said) == 2
    assert f"still_serving={first}" in said[0]


def test_a_registry_that_is_silent_and_an_alias_that_is_gone_change_nothing(registering: Door) -> None:
    version = promoted("light")
    with running("models:/light@champion") as endpoint:
        registering.state = "closed"
        wait_for(lambda: "MLflow" in endpoint.health()["following"])
        assert endpoint.meter("alias_polls_failed_total") >= 1
        assert endpoint.predict(picture()).status_code == 200
        registering.state = "open"
        wait_for(lambda: endpoint.health()["following"] == "ok")
        runs.client().delete_registered_model_alias("light", "champion")
        wait_for(lambda: "no version has the alias" in endpoint.health()["following"])
        assert endpoint.predict(picture()).json()["model"]["version"] == version


def test_without_a_champion_it_waits_for_one(registering: Door) -> None:
    with running("models:/later@champion", wait=True) as endpoint:
        assert endpoint.client.get("/ready").status_code == 503
        assert endpoint.health()["status"] == "waiting"
        assert "nightshift_model_info" not in endpoint.client.get("/metrics").text
        none = endpoint.predict(picture())
        assert refusal(none) == (503, "no-model")
        assert int(none.headers["Retry-After"]) >= 1
        version = promoted("later")
        wait_for(lambda: endpoint.client.get("/ready").status_code == 200)
        assert endpoint.predict(picture()).json()["model"] == {
            "uri": "models:/later@champion",
            "version": version,
            "sha256": hashlib.sha256(brightness(facts())).hexdigest(),
        }


def test_a_model_that_cannot_run_on_its_own_images_does_not_serve(tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(brightness(facts(side=16)))
    with (
        pytest.raises(InputError, match=r"images must be uint8 \[N,8,8,3\], got uint8 \[1,"),
        running(str(path)),
    ):
        pass


def test_the_alias_of_an_address_is_known() -> None:
    assert registry.alias_of("models:/digits@champion") == ("digits", "champion")
    assert registry.alias_of("models:/digits/3") is None
