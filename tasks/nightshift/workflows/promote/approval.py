"""What a person reads who is asked whether a version may become champion."""

from nightshift.errors import InputError
from nightshift.tracking import registry, runs


def body(pipeline: str, version: str, reason: str) -> str:
    """Markdown: what is replaced, the digest that the answer is about, the gates, and where the report is."""
    facts = registry.described(pipeline, version)
    sha256 = facts.tags.get(registry.SHA256, "")
    try:
        report = f"[The report]({runs.report_url(facts.run_id)}) · "
    except InputError:  # the run was deleted for good
        report = "The night's run with its report is not in MLflow any more · "
    lines = [
        f"{reason}.",
        facts.description,
        f"Your answer is about this file alone: SHA-256 `{sha256}`.",
        f"{report}[version {version} in MLflow]({registry.version_url(pipeline, version)})",
    ]
    return "\n\n".join(line for line in lines if line)
