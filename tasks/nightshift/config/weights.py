"""What `train.weights` may say: which weights a training starts from."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator

NAMED: Final = ("none", "imagenet", "champion")
MODEL: Final = re.compile(r"models:/[^/@]+(@[^/@]+|/\d+)")
FILE: Final = re.compile(r"(s3://[^/]+|file://)(/.+)?/(checkpoint\.json|[^/]+\.safetensors)")


def _known(value: str) -> str:
    if value in NAMED or MODEL.fullmatch(value) or FILE.fullmatch(value):
        return value
    raise ValueError(
        f"weights must be {', '.join(NAMED)}, a registered model such as models:/digits@champion or "
        "models:/digits/3, or the address of a checkpoint (s3://…/checkpoint.json or a .safetensors file), "
        f"got {value!r}"
    )


Weights = Annotated[str, AfterValidator(_known)]
