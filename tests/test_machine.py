"""What is said of the machine that times were measured on."""

import os
import platform

import onnxruntime
import openvino
import pytest

from nightshift.hardware import processor
from nightshift.inference import hardware

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_bf16 amx_int8 clflush

processor\t: 1
model name\t: another
"""
ARM = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes asimddp i8mm bf16
CPU implementer\t: 0x41
"""


@pytest.fixture
def says(tmp_path, monkeypatch):
    def install(text: str) -> None:
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")

    return install


def test_this_machine_is_named(monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "3")
    found = hardware.describe()
    assert found.processor not in ("", "unknown")
    assert (found.cores, found.threads) == (os.cpu_count(), 3)
    assert found.versions["onnxruntime"] == onnxruntime.__version__
    assert openvino.__version__.startswith(found.versions["openvino"])
    assert all(version[0].isdigit() for version in found.versions.values())


def test_an_intel_processor_has_its_name_and_features(says):
    says(X86)
    found = hardware.describe()
    assert found.processor == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert found.features == ("avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16")


def test_an_arm_processor_without_a_name_has_its_architecture(says, monkeypatch):
    says(ARM)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    found = hardware.describe()
    assert found.processor == "aarch64"
    assert found.features == ("asimd", "asimddp", "i8mm", "bf16")


def test_elsewhere_than_on_linux_there_are_no_features(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "nothing")
    monkeypatch.setattr(platform, "processor", lambda: "i386")
    assert (hardware.describe().processor, hardware.describe().features) == ("i386", ())
