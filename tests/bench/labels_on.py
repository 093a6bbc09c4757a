"""Labels that an ONNX file gives on the processor that this runs on, real or emulated.

python tests/bench/labels_on.py MODEL.onnx IMAGES.npy OUT.npy [onnxruntime | exact | openvino | openvino-f32]

Needs numpy and ONNX Runtime, and nothing of Nightshift. IMAGES are uint8 [N,H,W,C]. OUT becomes an array [N]
of records: `label` int64 and `probabilities` float32 [K]. `exact` is ONNX Runtime without graph optimization.
Prints the instructions for integer products that the processor says it has, as a JSON list.
"""

import ctypes
import json
import mmap
import platform
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Answers = list[tuple[NDArray[np.float32], NDArray[np.int64]]]
CHUNK: Final = 32  # images per call
OUTPUTS: Final = ("probabilities", "label")
# (leaf, subleaf), register and bit: Intel, "Software Developer's Manual", volume 2A, CPUID.
X86: Final = {
    "AVX2": ((7, 0), "ebx", 5),
    "AVX-512": ((7, 0), "ebx", 30),  # BW, which adds pairs of products of bytes
    "AVX512-VNNI": ((7, 0), "ecx", 11),
    "AVX-VNNI": ((7, 1), "eax", 4),
    "AMX-INT8": ((7, 0), "edx", 25),
}
# Number of getauxval() and bit: arch/arm64/include/uapi/asm/hwcap.h of Linux.
ARM: Final = {
    "dot products": (16, 20),
    "I8MM": (26, 13),
    "SVE": (16, 22),
    "SVE2": (26, 1),
    "SME": (26, 23),
}
# push rbx; mov r8, rdx; mov eax, edi; mov ecx, esi; cpuid; eax, ebx, ecx and edx to [r8]; pop rbx; ret
CPUID: Final = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")


def main(model: str, images: str, out: str, runtime: str = "onnxruntime") -> int:
    if runtime not in RUNTIMES:
        raise SystemExit(f"runtime {runtime!r} is unknown; known are {', '.join(RUNTIMES)}; name one of them")
    pixels = np.load(images)
    parts = RUNTIMES[runtime](model, pixels)
    probabilities, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    kind = [("label", np.int64), ("probabilities", np.float32, probabilities.shape[1:])]
    found = np.empty(len(pixels), dtype=kind)
    found["label"], found["probabilities"] = labels, probabilities
    np.save(out, found)
    print(json.dumps(instructions()))
    return 0


def _onnxruntime(model: str, images: Pixels, *, exact: bool = False) -> Answers:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [tuple(session.run(list(OUTPUTS), {"images": piece})) for piece in _pieces(images)]


def _openvino(model: str, images: Pixels, hints: dict[str, str] | None = None) -> Answers:
    """All pieces have the shape of the first: OpenVINO is quicker with fixed shapes, as it serves."""
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    shape = images[:CHUNK].shape
    network.reshape({"images": list(shape)})
    compiled = core.compile_model(network, "CPU", {"INFERENCE_NUM_THREADS": 1, **(hints or {})})
    request, answers = compiled.create_infer_request(), []
    for piece in _pieces(images):
        request.infer({"images": np.resize(piece, shape)})  # the last is filled up with its own images
        found = [request.get_tensor(name).data[: len(piece)].copy() for name in OUTPUTS]
        answers.append((found[0], found[1]))
    return answers


def _pieces(images: Pixels) -> Iterator[Pixels]:
    for start in range(0, len(images), CHUNK):
        yield images[start : start + CHUNK]


RUNTIMES: Final[dict[str, Callable[[str, Pixels], Answers]]] = {
    "onnxruntime": _onnxruntime,
    "exact": lambda model, images: _onnxruntime(model, images, exact=True),
    "openvino": _openvino,
    "openvino-f32": lambda model, images: _openvino(model, images, {"INFERENCE_PRECISION_HINT": "f32"}),
}


def instructions() -> list[str]:
    """Instructions for integer products that this process sees, by asking the processor or the kernel.

    /proc/cpuinfo is of no use here: under emulation it is the real machine's.
    """
    if platform.machine() == "x86_64":
        with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
            return [
                name for name, (leaf, register, bit) in X86.items() if _cpuid(page, leaf)[register] >> bit & 1
            ]
    if platform.machine() == "aarch64":
        getauxval = ctypes.CDLL(None).getauxval
        getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
        return [name for name, (kind, bit) in ARM.items() if getauxval(kind) >> bit & 1]
    return []


def _cpuid(page: mmap.mmap, leaf: tuple[int, int]) -> dict[str, int]:
    """Registers that the instruction `cpuid` fills, called through an executable page."""
    page[: len(CPUID)] = CPUID
    start: Any = ctypes.c_char.from_buffer(page)
    registers = ctypes.create_string_buffer(16)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)
    kind(ctypes.addressof(start))(*leaf, ctypes.addressof(registers))
    del start  # a page cannot be closed while something points into it
    return dict(zip(("eax", "ebx", "ecx", "edx"), struct.unpack("<4I", registers.raw), strict=True))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
