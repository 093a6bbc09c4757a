"""What every format's header says in the same words, and the refusal of a file."""

from typing import NamedTuple

from tasks.errors import InputError


class Unreadable(InputError):  # noqa: N818
    """A file that does not become an image. `reason` is a code to count by, `detail` a sentence to read.

    Reasons: `empty`, `not-an-image`, `unsupported`, `too-large`, `truncated`, `damaged`, `animated`,
    `channels`, and
    from the pool of decoders `crashed`, `timeout`, `too-much-memory`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["Unreadable"], tuple[str, str]]:
        return type(self), (self.reason, self.detail)  # so that it survives a process boundary


class Header(NamedTuple):
    format: str
    width: int  # as stored, before the orientation is undone
    height: int
    complete: bool  # the first image of the file ends where the format says, inside the file
    frames: int = 1  # of an animation, or pages
    orientation: int = 1  # EXIF, 1 (upright) to 8
