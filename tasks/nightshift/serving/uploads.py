"""The image files of a request, within limits on size, time and kind."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from typing import Final, NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from nightshift.config import PreprocessSettings
from nightshift.data.formats import UnreadableError
from nightshift.serving.responses import RefusedError

# The bytes say what an image is. A type only has to be none that promises something else, and clients
# that are told none send one of the last ones.
KINDS: Final = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
NONE: Final = ("", "binary/octet-stream", "application/x-www-form-urlencoded")
FORM: Final = "multipart/form-data"
SECONDS: Final = 30.0  # for a whole body to arrive: what has not arrived keeps room from others
PICTURES: Final = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF.{4}WEBP", re.DOTALL)
ARRAYS: Final = re.compile(rb"\x93NUMPY")


class Upload(NamedTuple):
    """One file; only files of a form have names."""

    name: str | None
    data: bytes


class Uploads(NamedTuple):
    """The files of a request; a form's are answered one by one, with names."""

    files: list[Upload]
    form: bool


async def uploads(request: Request, take: Callable[[int], None], *, megabytes: int, most: int) -> Uploads:
    """The files of a request of at most so many MiB and files; `take` is told of each piece of it, in bytes.

    Raises RefusedError, and what `take` raises.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind == FORM or kind in KINDS or kind in NONE or kind.startswith("image/")):
        raise RefusedError(
            415,
            "media-type",
            f"a body of type {kind!r} is not taken; send one image as image/jpeg, image/png, image/webp or "
            f"application/octet-stream, or many as {FORM}",
            Connection="close",
        )
    data = await _body(request, take, megabytes)
    if kind == FORM:
        return Uploads(await _files(request, data, most), form=True)
    return Uploads([Upload(None, data)], form=False)


async def _body(request: Request, take: Callable[[int], None], megabytes: int) -> bytes:
    """What is too long is left unread, and the connection closed."""
    limit, body = megabytes * 2**20, bytearray()
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > limit:
        raise _too_large(f"{told} bytes", megabytes)
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise _too_large(f"more than {limit} bytes", megabytes)
                take(len(chunk))
                body += chunk
    except TimeoutError as error:
        raise RefusedError(
            408,
            "too-slow",
            f"the body had not arrived after {SECONDS:g} s; send less, or on a faster connection",
            Connection="close",
        ) from error
    except ClientDisconnect as error:
        raise RefusedError(400, "disconnected", "the connection ended before the body did") from error
    return bytes(body)


def _too_large(what: str, megabytes: int) -> RefusedError:
    return RefusedError(
        413,
        "too-large",
        f"the body has {what}, over the limit of {megabytes} MiB; send a smaller image, or fewer at once",
        Connection="close",
    )


async def _files(request: Request, data: bytes, most: int) -> list[Upload]:
    async def once() -> AsyncGenerator[bytes, None]:
        yield data

    parser = MultiPartParser(request.headers, once(), max_files=most, max_fields=0)
    parser.spool_max_size = len(data) + 1  # it is all in memory already
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise RefusedError(
                413, "too-many", f"the form has more than {most} files; send them in several requests"
            ) from error
        raise RefusedError(
            400, "form", f"the form cannot be read ({error.message}); each part has to be a file with a name"
        ) from error
    files = [
        Upload(upload.filename or "", await upload.read())
        for _, upload in form.multi_items()
        if isinstance(upload, UploadFile)
    ]
    await form.close()
    if not files:
        raise RefusedError(400, "empty", "the form holds no files; send at least one image")
    return files


def check_kind(data: bytes, settings: PreprocessSettings) -> None:
    """Raises Unreadable unless the first bytes are those of a kind that is taken.

    Those are fewer than training takes: less code of decoders is open to strangers.
    """
    if not data:
        raise UnreadableError("empty", "the file has no bytes; send an image")
    arrays = settings.channels not in (1, 3)  # of which there are no pictures
    if not (ARRAYS if arrays else PICTURES).match(data):
        wanted = "a .npy array" if arrays else "a JPEG, PNG or WebP"
        raise UnreadableError(
            "unsupported", f"it begins with {data[:8]!r}, which is not {wanted}; convert it to one"
        )
