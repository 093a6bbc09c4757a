"""Notices to people by e-mail, Slack or a webhook, through Airflow's own notifiers.

NIGHTSHIFT_NOTIFY names where they go, separated by spaces: `smtp:ops@example.org` (through Airflow's
connection `smtp_default`), `slack:CONNECTION` (an incoming webhook) and `http:CONNECTION` (a JSON object with
the key `text` is posted to the connection's address). Without it nothing is sent. A notice that cannot be
sent fails nothing; a typing mistake in the variable is shown by `import_errors`, and nobody is told.
"""

import functools
import html
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.sdk import AsyncCallback, DeadlineAlert, DeadlineReference, get_current_context  # type: ignore[attr-defined]
from airflow.sdk.bases.notifier import BaseNotifier

from nightshift.errors import InputError
from nightshift.records import lengths

NOTIFY = "NIGHTSHIFT_NOTIFY"
KINDS = ("smtp", "slack", "http")
log = logging.getLogger(__name__)


def channels() -> list[tuple[str, str]]:
    """Kind and address of everything that NIGHTSHIFT_NOTIFY names. Raises InputError."""
    found = []
    for word in os.environ.get(NOTIFY, "").split():
        kind, colon, address = word.partition(":")
        if kind not in KINDS or not colon or not address:
            raise InputError(
                f"{NOTIFY} has {word!r}; each word must be smtp:ADDRESS, slack:CONNECTION or http:CONNECTION"
            )
        found.append((kind, address))
    return found


class Notice(BaseNotifier):
    """All channels as one notifier, for what Airflow sends itself; `text` may be a template.

    Airflow's own notifiers raise when the other side is away, and an approval would fail with them.
    """

    template_fields = ("text",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Any) -> None:
        _send(self.text, context)


def notifiers(text: str) -> list[BaseNotifier]:
    """One notifier for each channel, none when nobody is to be told; `text` may be a template."""
    return [_class(kind)(**_arguments(kind, address, text)) for kind, address in channels()]


def tell(text: str) -> None:
    """Send a notice from inside of a task. `text` is sent as it is: names of strangers are no templates."""
    _send(text, get_current_context())


def _send(text: str, context: Any) -> None:
    try:
        said = lengths.cut(text, lengths.NOTICE).replace("{%", "{ %")
        found = notifiers("{% raw %}" + said + "{% endraw %}")
    except InputError as error:  # a typing mistake in the setting must not cost the night
        log.warning("nobody is told: %s", error)
        return
    for notifier in found:
        try:
            # Calling it as a whole would log the error's text, which may hold the address; and who knows the
            # address of a webhook may post there.
            notifier.render_template_fields(context)
            notifier.notify(context)
        except Exception as error:  # whatever the other side says, the night goes on
            how, what = type(notifier).__name__, type(error).__name__
            log.warning("a notice could not be sent by %s (%s); check its connection", how, what)


def late(pipeline: str, hours: float | None) -> list[DeadlineAlert]:
    """What Airflow sends about a night that is not done after so many hours."""
    if hours is None:
        return []
    try:
        told = channels()
    except InputError as error:  # a typing mistake in the setting must not cost the pipeline
        log.warning("nobody is told of late nights: %s", error)
        return []
    text = f"{pipeline}: the night is late, it is not done after {hours:g} hours"
    return [
        DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(hours=hours),
            callback=AsyncCallback(_class(kind), kwargs=_arguments(kind, address, text)),
        )
        for kind, address in told
    ]


@functools.cache
def _class(kind: str) -> Callable[..., BaseNotifier]:
    """Imported only where it is used, because each takes a while."""
    if kind == "smtp":
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        return SmtpNotifier
    if kind == "slack":
        from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

        return SlackWebhookNotifier
    from airflow.providers.http.notifications import HttpNotifier

    return HttpNotifier


def _arguments(kind: str, address: str, text: str) -> dict[str, Any]:
    if kind == "smtp":
        return {
            "to": address,
            "subject": lengths.cut(f"Nightshift: {text}", lengths.SUBJECT),
            "html_content": html.escape(text, quote=False),
        }
    if kind == "slack":
        return {"slack_webhook_conn_id": address, "text": text}
    return {"http_conn_id": address, "json": {"text": text}}
