"""Processor name, cores, threads, and the instruction sets that decide how integers are computed.

Reads what Linux says of the first processor.
"""

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nightshift.errors import InputError

CPUINFO: Final = Path("/proc/cpuinfo")
FEATURES: Final = (  # instructions that decide how fast a network is, by the names that Linux gives them
    *("avx2", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)
# They add products of bytes in 32 bits. Without them x86 adds pairs of products in 16 bits, and saturates.
DOT_PRODUCTS: Final = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp")


def cores() -> int:
    """Cores that this process may use, fewer than there are under an affinity or a container's limit."""
    import joblib  # 0.15 s, which a command that computes nothing need not wait

    return int(joblib.cpu_count())


def threads(environment: Mapping[str, str] = os.environ) -> int:
    """Computing threads of a process: NIGHTSHIFT_THREADS, or as many as `cores`. Raises InputError."""
    asked = environment.get("NIGHTSHIFT_THREADS") or str(cores())
    if not (asked.isascii() and asked.isdecimal()) or int(asked) < 1:
        raise InputError(
            f"NIGHTSHIFT_THREADS must be a whole number from 1, got {asked!r}; correct or unset it"
        )
    return int(asked)


def name() -> str:
    """Its name, or its architecture where the system tells no name."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine() or "unknown"


def features() -> tuple[str, ...]:
    """Those of FEATURES that the processor has. On anything but Linux there are none."""
    told = _cpuinfo()
    flags = set((told.get("flags") or told.get("Features") or "").split())
    return tuple(feature for feature in FEATURES if feature in flags)


def has_dot_products() -> bool:
    """Whether sums of products of bytes are known to be exact, whatever their weights are."""
    there = features()
    if not there and platform.machine().lower() in ("arm64", "aarch64"):
        return True  # not Linux: all such processors of Apple and for Windows have them
    return not set(DOT_PRODUCTS).isdisjoint(there)


def missing_dot_products() -> str:
    """The instruction sets that it lacks, as the subject's end of a sentence; empty where it has one."""
    if has_dot_products():
        return ""
    there = features()
    if not there:
        return "instruction sets that are not known here"
    arm = "asimd" in there
    return "no dot products (asimddp)" if arm else "neither VNNI (avx512_vnni, avx_vnni) nor AMX (amx_int8)"


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first = re.split(r"\n\s*\n", text, maxsplit=1)[0]
    rows = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in rows}
