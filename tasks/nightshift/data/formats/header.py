"""What every format's header says in the same words, and the refusal of a file."""

from typing import Final, NamedTuple

from nightshift.errors import InputError

# What a file may consist of: chunks, segments, boxes or pages. Real ones have a few thousand at most.
MOST_PARTS: Final = 2**16


class UnreadableError(InputError):
    """A file that does not become an image. `reason` is a code to count by, `detail` a sentence to read.

    Reasons: `empty`, `not-an-image`, `unsupported`, `too-large`, `truncated`, `damaged`, `animated`,
    `channels`, and
    from the pool of decoders `crashed`, `timeout`, `too-much-memory`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["UnreadableError"], tuple[str, str]]:
        return type(self), (self.reason, self.detail)  # so that it survives a process boundary


def missing(name: str, extra: str, package: str) -> UnreadableError:
    """The refusal of a file whose decoder is an extra that is not installed."""
    return UnreadableError(
        "unsupported",
        f"{name} needs the extra {extra} of nightshift ({package}), which is not installed here; install it, "
        "or convert the file to PNG or JPEG",
    )


def check_parts(kind: str, parts: int) -> None:
    """Raises Unreadable for a file of more parts than any has; each of them takes time to look at."""
    if parts > MOST_PARTS:
        raise UnreadableError("damaged", f"{kind} has more than {MOST_PARTS} parts; save it again")


class Header(NamedTuple):
    format: str
    width: int  # as stored, before the orientation is undone
    height: int
    complete: bool  # the first image of the file ends where the format says, inside the file
    frames: int = 1  # of an animation, or pages
    orientation: int = 1  # EXIF, 1 (upright) to 8
