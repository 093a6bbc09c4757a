"""A night on generated images, made again from what it left behind, with and without something changed."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import speeds
import torch
from click.testing import Result
from typer.testing import CliRunner

from nightshift import register, storage
from nightshift.__main__ import call
from nightshift.cli import app, local_run
from nightshift.config import Pipeline
from nightshift.data.sources.samples import sample
from nightshift.errors import InputError
from nightshift.evaluation import benchmark
from nightshift.provenance import reproduce
from nightshift.provenance.reproduce import Reproduction
from nightshift.records import Artifact, BuildRecord, Code, InitialWeights
from nightshift.tracking import registry

SETTINGS = {
    "name": "tiny",
    "preprocess": {"image_size": 8, "part_seconds": 0.043},  # two parts
    "train": {"width": 0.125, "epochs": 2, "batch_size": 16, "crop_padding": 0},
    "quantize": {"recipes": ["int8"], "calibration_images": 32},
    "evaluate": {"latency_runs": 10, "throughput_batch": 8, "robustness": "none"},
    "promotion": {"mode": "never", "min_accuracy": 0.0},
}


class Night(NamedTuple):
    root: Path
    made: BuildRecord
    sha256: str  # of the registered model

    def again(self, folder: Path, *, data_only: bool = False, version: str = "1") -> Reproduction:
        return reproduce.reproduce("tiny", version, f"file://{folder}", data_only=data_only, echo=print)


@contextmanager
def settled(root: Path) -> Iterator[None]:
    """A store and a registry of files below `root`, and stages that run in this process."""

    def here(stage, spec, *, echo, environment=(), labels=()):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in dict(environment).items():
                patch.setenv(name, value)
            torch.set_num_threads(int(os.environ["NIGHTSHIFT_THREADS"]))
            return json.loads(call(stage, spec.model_dump_json()).model_dump_json())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSHIFT_STORE", f"file://{root}/store")
        patch.setenv("NIGHTSHIFT_THREADS", "1")
        patch.setenv("NIGHTSHIFT_PRECISION", "float32")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        patch.chdir(root)  # MLflow keeps the artifacts of such runs beside it
        patch.setattr(local_run, "run_stage", here)
        patch.setattr(reproduce, "run_stage", here)
        patch.setattr(benchmark, "measure", speeds.measure)
        patch.setattr(register, "sbom", lambda: b"{}")
        threads = torch.get_num_threads()
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def _night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    root = tmp_path_factory.mktemp("reproduced")
    with settled(root):
        source = f"file://{root}/store/incoming/tiny"
        (batch,) = sample("tiny")
        for item in batch.items:
            storage.write(f"{source}/batch-1/{item.key}", item.read())
        storage.write(f"{source}/batch-1/_READY", b"")
        result = local_run.run_night(Pipeline.model_validate(SETTINGS), force=False, echo=print)
        assert result["version"] == "1"
        made = reproduce.read_made("tiny", "1")
        # Only inputs and records count.
        for cache in ("shards", "checkpoints", "candidates", "datasets"):
            shutil.rmtree(root / "store" / cache)
        return Night(root, made, registry.version_tags("tiny", "1")[registry.SHA256])


@pytest.fixture
def night(_night: Night) -> Iterator[Night]:
    """The registered version; a test leaves its inputs as they are."""
    with settled(_night.root):
        yield _night


@pytest.fixture
def recorded(night, monkeypatch):
    """Lets the version's record say something else."""

    def record(made: BuildRecord) -> None:
        uri = f"file://{night.root}/store/made/changed-{id(made)}.json"
        tag = storage.write_record(uri, made).model_dump_json()
        tags = {**registry.version_tags("tiny", "1"), registry.MADE: tag}
        monkeypatch.setattr(registry, "version_tags", lambda *_: tags)

    return record


def test_the_same_bytes_come_out_although_no_stage_left_anything(night, tmp_path, monkeypatch):
    # Those of the record are taken.
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "2")
    monkeypatch.setenv("NIGHTSHIFT_PRECISION", "bfloat16")
    found = night.again(tmp_path)
    assert found.reproduced
    assert found.sentence == f"version 1 of tiny is reproduced: model.onnx has SHA-256 {night.sha256}"
    rows = {row.what: row for row in (*found.comparison.results, *found.comparison.conditions)}
    assert all(row.same for row in rows.values())
    assert rows["model.onnx"].now == night.made.candidate.model.sha256 == night.sha256
    assert rows["data set"].now == night.made.dataset
    assert rows["weights"].now == night.made.members[0].weights.sha256
    assert rows["threads"].now == "1"
    packages = {f"version of {name}" for name in ("torch", "onnxruntime", "nncf", "opencv", "numpy")}
    assert packages | {"code", "processor", "device", "precision"} <= set(rows)
    assert set(found.seconds) == {"preprocess", "assemble", "train", "quantize"}


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["reproduce", "tiny", "--version", "1", *arguments])


def test_the_command_makes_the_data_set_alone_and_keeps_it(night, tmp_path):
    kept = tmp_path / "kept"
    done = command("--data-only", "--keep", str(kept))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == (
        f"the data of version 1 of tiny is reproduced: data set {night.made.dataset}"
    )
    assert re.search(r"version of opencv +│ +(\S+) +│ +\1 +│ same", done.stdout)
    assert (kept / "datasets" / f"{night.made.dataset}.json").is_file()
    assert not (kept / "checkpoints").exists()
    again = command("--data-only", "--keep", str(kept))
    assert again.exit_code == 2
    assert "is not empty; name an empty folder" in again.stderr


def test_the_command_tells_a_difference_by_its_exit_code_and_as_json(night, recorded):
    recorded(night.made.model_copy(update={"pixels": "0" * 64}))
    done = command("--json")
    assert done.exit_code == 1, done.output
    found = Reproduction.model_validate_json(done.stdout.splitlines()[-1])
    assert found.sentence == (
        "version 1 of tiny is not reproduced: the stored images differ; no condition that is recorded differs"
    )
    assert "train" not in found.seconds


def test_other_settings_give_other_weights(night, recorded, tmp_path):
    (member,) = night.made.members
    faster = member.settings.model_copy(update={"learning_rate": 0.01})
    recorded(night.made.model_copy(update={"members": (member.model_copy(update={"settings": faster}),)}))
    found = night.again(tmp_path)
    assert not found.reproduced
    assert found.sentence == (
        "version 1 of tiny is not reproduced: the weights differ; no condition that is recorded differs"
    )
    assert [row.same for row in found.comparison.results] == [True, True, False, False]


def test_code_and_threads_that_differ_are_named(night, recorded, tmp_path):
    (member,) = night.made.members
    code = Code(version="0.0.9", commit="", sha256="c" * 64)
    elsewhere = member.made_with.model_copy(update={"code": code, "processor": "another one"})
    changes = {"made_with": elsewhere, "settings": member.settings.model_copy(update={"seed": 1})}
    recorded(night.made.model_copy(update={"members": (member.model_copy(update=changes),)}))
    now = night.made.candidate.made_with
    sentence = night.again(tmp_path).sentence
    assert sentence.startswith("version 1 of tiny is not reproduced: the weights differ; ")
    assert f"the code differs (0.0.9, SHA-256 {'c' * 12} and 0.1.0" in sentence
    assert f"the processor differs (another one and {now.processor}, now {now.processor})" in sentence


@contextmanager
def altered(night: Night, data: bytes | None, *, later: float) -> Iterator[str]:
    """One of the images removed or with other bytes, written so many seconds after the last of them."""
    file = sorted((night.root / "store/incoming/tiny/batch-1").glob("*/*.png"))[0]
    before, stat = file.read_bytes(), file.stat()
    try:
        if data is None:
            file.unlink()
        else:
            file.write_bytes(data)
            os.utime(file, (night.made.plan.newest + later,) * 2)
        yield f"{file.parent.name}/{file.name}"
    finally:
        file.write_bytes(before)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def png(night: Night) -> bytes:
    """Bytes of another image of the batch."""
    return sorted((night.root / "store/incoming/tiny/batch-1").glob("*/*.png"))[-1].read_bytes()


def test_an_image_that_is_gone_is_named(night, tmp_path):
    where = rf"of batch batch-1 of {night.made.plan.source}"
    with altered(night, None, later=0) as key, pytest.raises(InputError, match=f"{key} {where}: gone"):
        night.again(tmp_path)


def test_an_image_that_was_changed_is_named(night, tmp_path):
    with altered(night, png(night), later=5) as key, pytest.raises(InputError) as caught:
        night.again(tmp_path)
    assert str(caught.value) == (
        f"{key} of batch batch-1 of {night.made.plan.source}: changed since the version was made of it; put "
        "it back"
    )


def test_a_change_that_no_time_tells_is_found_too(night, tmp_path):
    with altered(night, png(night), later=-5) as key, pytest.raises(InputError, match=f"among {key}, .* and"):
        night.again(tmp_path)


def test_where_another_code_made_it_the_pixels_tell_what_listings_cannot(night, recorded, tmp_path, capsys):
    made_with = night.made.candidate.made_with
    code = made_with.code.model_copy(update={"sha256": "c" * 64})
    conditions = {"made_with": made_with.model_copy(update={"code": code})}
    candidate = night.made.candidate.model_copy(update=conditions)
    recorded(night.made.model_copy(update={"candidate": candidate}))
    with altered(night, png(night), later=5) as key, pytest.raises(InputError, match=f"^{key} of batch"):
        night.again(tmp_path)
    with altered(night, png(night), later=-5):
        found = night.again(tmp_path, data_only=True)
    assert "only pixels are compared" in capsys.readouterr().out
    assert ": the stored images differ; the code differs (0.1.0" in found.sentence


def test_a_batch_that_is_gone_is_named(night, tmp_path):
    batch = night.root / "store/incoming/tiny/batch-1"
    batch.rename(night.root / "away")
    try:
        with pytest.raises(InputError, match=f"batch batch-1 of {night.made.plan.source} is gone"):
            night.again(tmp_path)
    finally:
        (night.root / "away").rename(batch)


def test_a_version_without_the_record_is_said(night, monkeypatch):
    monkeypatch.setattr(registry, "version_tags", lambda *_: {})
    done = command()
    assert done.exit_code == 2
    assert "version 1 of tiny does not record what it was made of (tag nightshift.made)" in done.stderr


def test_a_record_of_another_shape_is_refused_by_what_is_wrong_in_it(night, monkeypatch, tmp_path):
    record = storage.write(f"file://{tmp_path}/old.json", json.dumps({"dataset": "d"}).encode())
    monkeypatch.setattr(registry, "version_tags", lambda *_: {registry.MADE: record.model_dump_json()})
    with pytest.raises(InputError, match=r"cannot be read by this Nightshift \(plan: Field required\)"):
        night.again(tmp_path)


def test_a_version_that_does_not_exist_is_said(night, tmp_path):
    with pytest.raises(InputError, match="version 9 of tiny is not in MLflow"):
        night.again(tmp_path, version="9")


def test_weights_that_training_started_from_must_be_there(night, recorded, tmp_path):
    weights = Artifact(uri=f"file://{tmp_path}/gone.safetensors", sha256="0" * 64, size=1)
    start = {"start": InitialWeights(name="models:/tiny/0", weights=weights)}
    recorded(night.made.model_copy(update={"plan": night.made.plan.model_copy(update=start)}))
    with pytest.raises(InputError, match=r"started from, models:/tiny/0, are gone; put file:///\S+ back"):
        night.again(tmp_path / "store")


def of_member(made: BuildRecord, **changes: object) -> BuildRecord:
    """As if its network had been trained under other conditions."""
    (member,) = made.members
    conditions = member.made_with.model_copy(update=changes)
    return made.model_copy(update={"members": (member.model_copy(update={"made_with": conditions}),)})


def test_a_training_by_several_processes_is_not_made_again_but_its_data_is(night, recorded, tmp_path):
    recorded(of_member(night.made, processes=4))
    with pytest.raises(InputError, match=r"was trained by 4 processes, .* take --data-only"):
        night.again(tmp_path)
    assert night.again(tmp_path, data_only=True).reproduced


def test_another_kind_of_device_is_said_before_anything_is_made(night, capsys):
    made = of_member(night.made, device="tpu")
    reproduce.check_processes(made, "version 1 of tiny", False, print)
    here = night.made.members[0].made_with.device
    said = capsys.readouterr().out
    assert said == (
        f"version 1 of tiny was trained on tpu and this is {here}: their bits are not comparable\n"
    )
