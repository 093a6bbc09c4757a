"""Fuzz every reader of foreign bytes, guided by what of the code each input reaches.

python tests/bench/fuzz.py SECONDS [FOLDER]      (make fuzz: an hour; inputs that fail are kept in FOLDER)

A reader answers, or refuses in words (InputError). Another exception, a crash of a library, 20 s or 2 GiB
for one input of at most 64 kB: that input is kept, and the exit code is 1. The readers take turns, each in
a process of its own; the inputs to begin with are made here, of every kind that is read.
"""

import asyncio
import csv
import gzip
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import atheris
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

with atheris.instrument_imports(include=["tasks", "starlette", "python_multipart"]):
    from starlette.requests import Request

    from nightshift.config import PreprocessSettings
    from nightshift.data import labels
    from nightshift.data.images import decode, load
    from nightshift.data.sources import find
    from nightshift.errors import InputError
    from nightshift.serving import uploads
    from nightshift.serving.responses import RefusedError

# Below what a stage allows, so that an input takes milliseconds, and memory shows what grows.
SMALL: Final = PreprocessSettings(image_size=16, max_pixels=10**6, max_megabytes=1)
LIMITS: Final = ("-timeout=20", "-rss_limit_mb=2048", "-max_len=65536")
SUFFIXES: Final = {"manifests": ("csv", "parquet"), "archives": ("zip", "tar"), "arrays": ("npz", "idx")}
BOUNDARY: Final = b"fuzz"


def images(data: bytes) -> None:
    for read in (load, decode):
        with suppress(InputError):
            read(data, SMALL)


def manifests(data: bytes) -> None:
    for _ in labels.rows(data[1:], f"manifest.{_suffix('manifests', data)}"):
        pass


def archives(data: bytes) -> None:
    _found(data[1:], f"batch.{_suffix('archives', data)}")


def arrays(data: bytes) -> None:
    kind = _suffix("arrays", data)
    _found(data[1:], "batch.npz" if kind == "npz" else "train-images-idx3-ubyte.gz")


def forms(data: bytes) -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": data, "more_body": False}

    kind = b"multipart/form-data; boundary=" + BOUNDARY
    request = Request({"type": "http", "headers": [(b"content-type", kind)]}, receive)
    with suppress(RefusedError):
        asyncio.run(uploads.uploads(request, int, megabytes=1, most=8))


def _suffix(target: str, data: bytes) -> str:
    """The first byte chooses the kind of file."""
    return SUFFIXES[target][data[0] % 2] if data else SUFFIXES[target][0]


def _found(data: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder, name)
        path.write_bytes(data)
        if name.endswith("ubyte.gz"):
            Path(folder, "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x01\x07")
        for item in stack.enter_context(find(path)).items[:4]:
            item.read()


def _image_seeds() -> Iterator[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    for extension in (".jpg", ".png", ".webp", ".bmp", ".ppm", ".tiff"):
        yield bytes(cv2.imencode(extension, pixels)[1])
    picture, exif = Image.fromarray(pixels), Image.Exif()
    exif[274] = 6
    options = {
        "JPEG": {"progressive": True, "exif": exif},
        "PNG": {"exif": exif, "save_all": True, "append_images": [picture.rotate(90)]},
        "WEBP": {"exif": exif, "save_all": True, "append_images": [picture.rotate(90)]},
        "GIF": {"save_all": True, "append_images": [picture.rotate(90)]},
        "TIFF": {"compression": "tiff_adobe_deflate", "exif": exif},
        "JPEG2000": {},
        "AVIF": {"exif": exif},
    }
    for format, given in options.items():
        yield _saved(lambda file, format=format, given=given: picture.save(file, format, **given))
    for compression in ("jpeg", "tiff_lzw", "packbits", "group4"):
        kind = picture.convert("1") if compression == "group4" else picture
        yield _saved(lambda file, c=compression, kind=kind: kind.save(file, "TIFF", compression=c))
    for mode in ("P", "L", "LA", "RGBA", "I;16"):
        yield _saved(lambda file, mode=mode: picture.convert("L").convert(mode).save(file, "PNG"))
    yield _saved(lambda file: np.save(file, pixels))
    yield b"P2 2 2 255\n1 2 3 4\n"


def _manifest_seeds() -> Iterator[bytes]:
    text = io.StringIO()
    csv.writer(text).writerows(
        [["path", "label", "split", "site"], ["a.png", "cat", "val", "1"], ["b", "c", "", ""]]
    )
    yield b"\0" + text.getvalue().encode()
    table = pa.table({"path": ["a.png", "b.png"], "label": ["cat", "dog"], "age": [1.5, None]})
    for compression in ("snappy", "zstd", "none"):
        yield b"\1" + _saved(lambda file, c=compression: pq.write_table(table, file, compression=c))


def _archive_seeds() -> Iterator[bytes]:
    members = {"cat/1.png": b"one", "dog/2.png": b"two" * 99}
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", packing) as pack:
            for name, data in members.items():
                pack.writestr(name, data)
        yield b"\0" + packed.getvalue()
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode=mode) as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        yield b"\1" + packed.getvalue()


def _array_seeds() -> Iterator[bytes]:
    pixels, classes = np.zeros((2, 4, 4), np.uint8), np.array([3, 5])
    for save in (np.savez, np.savez_compressed):
        yield b"\0" + _saved(lambda file, save=save: save(file, x_train=pixels, y_train=classes))
    yield b"\1" + gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\x01" + b"\0\0\0\x02" * 2 + bytes(4))


def _form_seeds() -> Iterator[bytes]:
    head = b'Content-Disposition: form-data; name="a"; filename="b.png"\r\nContent-Type: image/png\r\n\r\n'
    part = b"--" + BOUNDARY + b"\r\n" + head + b"pixels\r\n"
    yield part + b"--" + BOUNDARY + b"--\r\n"
    yield part * 3 + b"--" + BOUNDARY + b"--\r\n"


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


TARGETS: Final[dict[str, tuple[Callable[[bytes], None], Callable[[], Iterator[bytes]]]]] = {
    "images": (images, _image_seeds),
    "manifests": (manifests, _manifest_seeds),
    "archives": (archives, _archive_seeds),
    "arrays": (arrays, _array_seeds),
    "forms": (forms, _form_seeds),
}
# Most code, and most of it not ours, is behind images.
SHARES: Final = {"images": 0.6, "manifests": 0.1, "archives": 0.1, "arrays": 0.1, "forms": 0.1}


def fuzz(target: str, arguments: list[str]) -> None:
    """Until the time is over or an input fails; never returns."""
    read, _ = TARGETS[target]

    def one(data: bytes) -> None:
        with suppress(InputError):
            read(data)

    atheris.Setup(["fuzz", *arguments], one)
    atheris.Fuzz()


def main(seconds: float, found: Path) -> int:
    """The number of readers that failed, each at most once."""
    found.mkdir(parents=True, exist_ok=True)
    failed = 0
    for target, share in SHARES.items():
        with tempfile.TemporaryDirectory() as corpus:
            for number, data in enumerate(TARGETS[target][1]()):
                Path(corpus, f"seed-{number}").write_bytes(data)
            time = max(1, round(seconds * share))
            limits = (*LIMITS, f"-max_total_time={time}", f"-artifact_prefix={found}/{target}-")
            done = subprocess.run([sys.executable, __file__, "--one", target, corpus, *limits], check=False)
            failed += done.returncode != 0
            print(
                f"{target}: {'failed, see ' + str(found) if done.returncode else 'nothing found'}", flush=True
            )
    return failed


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main(float(sys.argv[1]), Path(*sys.argv[2:3]) if sys.argv[2:] else Path("fuzz-found")) > 0)
