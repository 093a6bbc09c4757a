"""Where images lie, as a pipeline file says it."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator

ADDRESS: Final = re.compile(r"(s3://[^/\s]+|file:///)(/?\S.*)?")
LONGEST: Final = 1024  # bytes, of a key of S3


def _known(value: str) -> str:
    upwards = ".." in value.split("/")
    if not ADDRESS.fullmatch(value) or upwards or len(value.encode()) > LONGEST:
        raise ValueError(
            f"source must be s3://BUCKET/PREFIX or file:///FOLDER without '..', of at most {LONGEST:,} "
            f"bytes, got {value[:200]!r}"
        )
    return value


Source = Annotated[str, AfterValidator(_known)]
