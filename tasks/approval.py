"""What a person reads who is asked whether a version may become champion."""

from tasks import registry, tracking


def body(pipeline: str, version: str, reason: str) -> str:
    """Markdown: what is replaced, the digest that the answer is about, the gates, and where the report is."""
    facts = registry.described(pipeline, version)
    sha256 = facts.tags.get(registry.SHA256, "")
    lines = [
        f"{reason}.",
        facts.description,
        f"Your answer is about this file alone: SHA-256 `{sha256}`.",
        f"[The report]({tracking.report_url(facts.run_id)}) · "
        f"[version {version} in MLflow]({registry.version_url(pipeline, version)})",
    ]
    return "\n\n".join(line for line in lines if line)
