"""How long a text may be where it is kept, in characters.

Who writes one there cuts it to that: a night's work is not lost for a sentence. What is read back is not cut,
so it is short by what it is, or in a file.
"""

import posixpath
import re
from typing import Final

from nightshift.config import digest_of

# mlflow.utils.validation
PARAM: Final = 6_000  # MAX_PARAM_VAL_LENGTH
RUN_TAG: Final = 8_000  # MAX_TAG_VAL_LENGTH
METRIC_NAME: Final = 250  # MAX_ENTITY_KEY_LENGTH
VERSION_TAG: Final = 100_000  # MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH
DATASET_DIGEST: Final = 36  # MAX_DATASET_DIGEST_SIZE
# mlflow.store.model_registry.dbmodels.models, where PostgreSQL refuses what is longer
DESCRIPTION: Final = 5_000  # SqlModelVersion.description
# What people still read; no limit of a program.
CLASSES: Final = 500  # of their names, in a tag
SUBJECT: Final = 200  # of an e-mail
NOTICE: Final = 4_000  # as Slack recommends; it refuses what is ten times longer


def cut(text: str, most: int) -> str:
    """The text, or its beginning with an ellipsis where it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def metric_name(name: str) -> str:
    """The name with what MLflow does not allow replaced, for names that strangers chose; two stay two."""
    allowed = re.sub(r"[^/\w.\- :]", "_", name)
    if posixpath.normpath(allowed) != allowed:
        allowed = allowed.replace("/", "_")
    if allowed == name and len(name) <= METRIC_NAME:
        return name
    return f"{allowed[: METRIC_NAME - 9]} {digest_of(name)[:8]}"
