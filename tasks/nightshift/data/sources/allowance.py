"""How much may come out of a packed file. Whoever makes one can make it grow a thousandfold."""

from pathlib import Path
from typing import IO, Final, NoReturn

from nightshift.errors import InputError

MOST_FILES: Final = 2_000_000
MOST_BYTES: Final = 256 * 2**30
# Photos hardly shrink at all; drawings may shrink a hundredfold. Small files may hold anything.
MOST_RATIO: Final = 200
ALWAYS_ALLOWED: Final = 64 * 2**20
CHUNK: Final = 2**20


class Allowance:
    """The bytes that are `left` to come out of the packed file `source`, of all its members together."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.left = min(MOST_BYTES, max(ALWAYS_ALLOWED, MOST_RATIO * source.stat().st_size))

    def take(self, size: int) -> None:
        """Raises InputError when that is more than is left."""
        self.left -= size
        if self.left < 0:
            self.too_much()

    def too_much(self) -> NoReturn:
        raise InputError(
            f"{self.source} grows to more than {MOST_RATIO} times its size or {MOST_BYTES} bytes when "
            "unpacked, like an archive that is made to fill disks; unpack it by hand when you trust it"
        )

    def count(self, files: int) -> None:
        """Raises InputError for more files than one batch may bring."""
        if files > MOST_FILES:
            raise InputError(f"{self.source} holds more than {MOST_FILES} files; cut it into several")

    def unpack(self, packed: IO[bytes], file: Path, declared: int = MOST_BYTES) -> int:
        """Write what comes out of a stream to a file; how many bytes that were. Raises InputError.

        More than `declared` is too much as well.
        """
        written = 0
        with file.open("wb") as out:
            while data := packed.read(CHUNK):
                self.take(len(data))
                written += len(data)
                if written > declared:
                    self.too_much()
                out.write(data)
        return written
