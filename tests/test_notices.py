"""Notices to people: where they go, and what is said when the setting is wrong."""

from datetime import timedelta

import pytest
from webhook import webhook

from nightshift.errors import InputError
from nightshift.records import lengths


@pytest.fixture
def notifications(airflow_home, monkeypatch):
    from nightshift.airflow import notifications as module

    monkeypatch.delenv(module.NOTIFY, raising=False)
    return module


def test_nobody_is_told_unless_somebody_is_named(notifications):
    assert notifications.channels() == notifications.notifiers("x") == notifications.late("pets", 3) == []


def test_each_channel_has_a_notifier_of_airflow_s_own(notifications, monkeypatch):
    monkeypatch.setenv(notifications.NOTIFY, "smtp:ops@example.org slack:team http:hook")
    mail, slack, hook = notifications.notifiers("version 3 waits")
    assert (mail.to, mail.subject, mail.html_content) == (
        "ops@example.org",
        "Nightshift: version 3 waits",
        "version 3 waits",
    )
    assert (slack.slack_webhook_conn_id, slack.text) == ("team", "version 3 waits")
    assert (hook.http_conn_id, hook.json, hook.method) == ("hook", {"text": "version 3 waits"}, "POST")


@pytest.mark.parametrize("wrong", ["ops@example.org", "pager:me", "http:"])
def test_a_wrong_channel_is_said_in_words(notifications, monkeypatch, wrong):
    monkeypatch.setenv(notifications.NOTIFY, f"slack:team {wrong}")
    with pytest.raises(InputError, match=f"has '{wrong}'; each word must be"):
        notifications.channels()


def test_a_late_night_is_a_deadline_of_each_channel(notifications, monkeypatch):
    monkeypatch.setenv(notifications.NOTIFY, "slack:team http:hook")
    assert notifications.late("pets", None) == []
    alerts = notifications.late("pets", 3.5)
    assert [alert.interval for alert in alerts] == [timedelta(hours=3.5)] * 2
    assert alerts[1].callback.kwargs["json"]["text"] == (
        "pets: the night is late, it is not done after 3.5 hours"
    )


@pytest.fixture
def hook(monkeypatch):
    """A server that keeps what is posted to it, and Airflow's connection `hook` to it."""
    with webhook() as found:
        monkeypatch.setenv("AIRFLOW_CONN_HOOK", found.url)
        yield found


def test_names_of_strangers_are_no_templates(notifications, monkeypatch, hook):
    monkeypatch.setenv(notifications.NOTIFY, "http:hook")
    monkeypatch.setattr(notifications, "get_current_context", dict)
    notifications.tell("{{ 1 + 1 }} {% endraw %} <b>")
    assert hook.texts == ["{{ 1 + 1 }} { % endraw %} <b>"]


def test_an_endless_notice_is_cut(notifications, monkeypatch, hook):
    monkeypatch.setenv(notifications.NOTIFY, "http:hook")
    monkeypatch.setattr(notifications, "get_current_context", dict)
    notifications.tell("ö" * 200_000)
    assert [len(text) for text in hook.texts] == [lengths.NOTICE]


def test_a_notice_that_cannot_be_sent_fails_nothing(notifications, monkeypatch, caplog):
    monkeypatch.setenv(notifications.NOTIFY, "http:hook")
    monkeypatch.setenv("AIRFLOW_CONN_HOOK", "http://127.0.0.1:9")
    monkeypatch.setattr(notifications, "get_current_context", dict)
    notifications.tell("hello")
    assert "a notice could not be sent by HttpNotifier (ConnectionError)" in caplog.text


def test_the_secret_part_of_an_address_is_not_logged(notifications, monkeypatch, caplog, capfd):
    """The path of an incoming webhook is all that it takes to post there."""
    monkeypatch.setenv(notifications.NOTIFY, "http:hook")
    monkeypatch.setattr(notifications, "get_current_context", dict)
    for address in ("http://127.0.0.1:9/services/T0/B0/hidden", "http://:hidden@127.0.0.1:9"):
        monkeypatch.setenv("AIRFLOW_CONN_HOOK", address)
        notifications.tell("hello")
    assert caplog.text.count("a notice could not be sent") == 2
    assert "hidden" not in caplog.text + "".join(capfd.readouterr())


def test_a_wrong_channel_costs_the_notice_and_not_the_task(notifications, monkeypatch, caplog):
    monkeypatch.setenv(notifications.NOTIFY, "pager:me")
    monkeypatch.setattr(notifications, "get_current_context", dict)
    notifications.tell("hello")
    assert "nobody is told: NIGHTSHIFT_NOTIFY has 'pager:me'" in caplog.text


def test_what_airflow_sends_itself_fails_nothing_either(notifications, monkeypatch, caplog, hook):
    notice = notifications.Notice("version {{ ti['version'] }} waits")
    monkeypatch.setenv(notifications.NOTIFY, "http:hook")
    notice({"ti": {"version": "3 {{ 1 + 1 }}"}})
    assert hook.texts == ["version 3 {{ 1 + 1 }} waits"]
    monkeypatch.setenv("AIRFLOW_CONN_HOOK", "http://127.0.0.1:9")
    notifications.Notice("hello")({})
    assert "a notice could not be sent by HttpNotifier (ConnectionError)" in caplog.text


def test_an_e_mail_shows_names_of_strangers_as_they_are(notifications, monkeypatch):
    monkeypatch.setenv(notifications.NOTIFY, "smtp:ops@example.org")
    (mail,) = notifications.notifiers("new class <img src=x>")
    assert mail.html_content == "new class &lt;img src=x&gt;"
