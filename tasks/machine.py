"""What the machine is that times are measured on, without asking a heavy library."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Final

import onnxruntime

from tasks import runtime
from tasks.records import Machine

CPUINFO: Final = Path("/proc/cpuinfo")
FEATURES: Final = (  # instructions that decide how fast a network is, by the names that Linux gives them
    *("avx2", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)


def describe() -> Machine:
    """The machine of this process. On anything but Linux the features stay empty."""
    told = _cpuinfo()
    flags = set((told.get("flags") or told.get("Features") or "").split())
    return Machine(
        processor=processor(),
        features=tuple(name for name in FEATURES if name in flags),
        cores=os.cpu_count() or 1,
        threads=runtime.threads(),
        versions=_versions(),
    )


def processor() -> str:
    """Its name, or its architecture where the system tells no name."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine() or "unknown"


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first = re.split(r"\n\s*\n", text, maxsplit=1)[0]
    rows = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in rows}


def _versions() -> dict[str, str]:
    # The wheel of ONNX Runtime has other names too, such as onnxruntime-gpu.
    found = {"onnxruntime": str(onnxruntime.__version__)}
    if "openvino" in runtime.installed():
        found["openvino"] = importlib.metadata.version("openvino")
    return found
