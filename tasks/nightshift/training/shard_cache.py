"""Shards on the local disk, for a training that reads them in every epoch and cannot keep them in memory."""

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from nightshift import storage
from nightshift.errors import InputError, OutageError
from nightshift.records import Artifact
from nightshift.storage import cache, outputs

LIMIT_GB: Final = 20.0


class ShardCache:
    """A folder of at most `limit` bytes. What does not fit, or cannot be written, is read from the store.

    What is there stays: shards are read in turns, so throwing out the one that waits longest would keep none
    until its turn comes. Shards that this training does not read make room, the oldest first.
    """

    def __init__(self, folder: Path, limit: int, wanted: set[str]) -> None:
        """`wanted` are the digests of the shards that are read."""
        self._folder, self._limit, self._wanted = folder, limit, wanted
        self._works = True

    @classmethod
    def of_machine(cls, wanted: set[str]) -> "ShardCache":
        """As NIGHTSHIFT_CACHE and NIGHTSHIFT_CACHE_GB say."""
        limit = float(os.environ.get("NIGHTSHIFT_CACHE_GB") or LIMIT_GB)
        return cls(cache.folder(), int(limit * 1e9), wanted)

    def read(self, shard: Artifact) -> bytes:
        """The shard's bytes, checked against its digest."""
        kept = shard.model_copy(update={"uri": f"file://{self._folder / shard.sha256}"})
        with contextlib.suppress(InputError, OSError):  # it is not there, or damaged
            return storage.read_artifact(kept)
        data = outputs.read(shard)
        if self._works:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self._make_room(len(data)):
                    storage.write(kept.uri, data)
            except (OSError, OutageError) as error:
                self._works = False
                print(
                    f"shards are read from the store in every epoch, since {self._folder} cannot keep them "
                    f"({error}); set NIGHTSHIFT_CACHE to a folder with room",
                    flush=True,
                )
        return data

    def _make_room(self, size: int) -> bool:
        """Whether so many bytes fit, once what nobody wants is gone."""
        shards = (file for file in self._folder.iterdir() if re.fullmatch("[0-9a-f]{64}", file.name))
        found = [(file, file.stat()) for file in shards]
        used = sum(stat.st_size for _, stat in found)
        for file, stat in sorted(found, key=lambda pair: pair[1].st_mtime):
            if used + size <= self._limit:
                break
            if file.name not in self._wanted:
                file.unlink(missing_ok=True)
                used -= stat.st_size
        return used + size <= self._limit
