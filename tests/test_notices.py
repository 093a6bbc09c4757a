"""Notices to people: where they go, and what is said when the setting is wrong."""

from datetime import timedelta

import pytest
from webhook import webhook

from nightshift.errors import InputError
from nightshift.records import lengths


@pytest.fixture
def notices(airflow_home, monkeypatch):
    import notices

    monkeypatch.delenv(notices.NOTIFY, raising=False)
    return notices


def test_nobody_is_told_unless_somebody_is_named(notices):
    assert notices.channels() == notices.notifiers("x") == notices.late("pets", 3) == []


def test_each_channel_has_a_notifier_of_airflow_s_own(notices, monkeypatch):
    monkeypatch.setenv(notices.NOTIFY, "smtp:ops@example.org slack:team http:hook")
    mail, slack, hook = notices.notifiers("version 3 waits")
    assert (mail.to, mail.subject, mail.html_content) == (
        "ops@example.org",
        "Nightshift: version 3 waits",
        "version 3 waits",
    )
    assert (slack.slack_webhook_conn_id, slack.text) == ("team", "version 3 waits")
    assert (hook.http_conn_id, hook.json, hook.method) == ("hook", {"text": "version 3 waits"}, "POST")


@pytest.mark.parametrize("wrong", ["ops@example.org", "pager:me", "http:"])
def test_a_wrong_channel_is_said_in_words(notices, monkeypatch, wrong):
    monkeypatch.setenv(notices.NOTIFY, f"slack:team {wrong}")
    with pytest.raises(InputError, match=f"has '{wrong}'; each word must be"):
        notices.channels()


def test_a_late_night_is_a_deadline_of_each_channel(notices, monkeypatch):
    monkeypatch.setenv(notices.NOTIFY, "slack:team http:hook")
    assert notices.late("pets", None) == []
    alerts = notices.late("pets", 3.5)
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


def test_names_of_strangers_are_no_templates(notices, monkeypatch, hook):
    monkeypatch.setenv(notices.NOTIFY, "http:hook")
    monkeypatch.setattr(notices, "get_current_context", dict)
    notices.tell("{{ 1 + 1 }} {% endraw %} <b>")
    assert hook.texts == ["{{ 1 + 1 }} { % endraw %} <b>"]


def test_an_endless_notice_is_cut(notices, monkeypatch, hook):
    monkeypatch.setenv(notices.NOTIFY, "http:hook")
    monkeypatch.setattr(notices, "get_current_context", dict)
    notices.tell("ö" * 200_000)
    assert [len(text) for text in hook.texts] == [lengths.NOTICE]


def test_a_notice_that_cannot_be_sent_fails_nothing(notices, monkeypatch, caplog):
    monkeypatch.setenv(notices.NOTIFY, "http:hook")
    monkeypatch.setenv("AIRFLOW_CONN_HOOK", "http://127.0.0.1:9")
    monkeypatch.setattr(notices, "get_current_context", dict)
    notices.tell("hello")
    assert "a notice could not be sent by HttpNotifier (ConnectionError)" in caplog.text


def test_the_secret_part_of_an_address_is_not_logged(notices, monkeypatch, caplog, capfd):
    """The path of an incoming webhook is all that it takes to post there."""
    monkeypatch.setenv(notices.NOTIFY, "http:hook")
    monkeypatch.setattr(notices, "get_current_context", dict)
    for address in ("http://127.0.0.1:9/services/T0/B0/hidden", "http://:hidden@127.0.0.1:9"):
        monkeypatch.setenv("AIRFLOW_CONN_HOOK", address)
        notices.tell("hello")
    assert caplog.text.count("a notice could not be sent") == 2
    assert "hidden" not in caplog.text + "".join(capfd.readouterr())


def test_a_wrong_channel_costs_the_notice_and_not_the_task(notices, monkeypatch, caplog):
    monkeypatch.setenv(notices.NOTIFY, "pager:me")
    monkeypatch.setattr(notices, "get_current_context", dict)
    notices.tell("hello")
    assert "nobody is told: NIGHTSHIFT_NOTIFY has 'pager:me'" in caplog.text


def test_what_airflow_sends_itself_fails_nothing_either(notices, monkeypatch, caplog, hook):
    notice = notices.Notice("version {{ ti['version'] }} waits")
    monkeypatch.setenv(notices.NOTIFY, "http:hook")
    notice({"ti": {"version": "3 {{ 1 + 1 }}"}})
    assert hook.texts == ["version 3 {{ 1 + 1 }} waits"]
    monkeypatch.setenv("AIRFLOW_CONN_HOOK", "http://127.0.0.1:9")
    notices.Notice("hello")({})
    assert "a notice could not be sent by HttpNotifier (ConnectionError)" in caplog.text


def test_an_e_mail_shows_names_of_strangers_as_they_are(notices, monkeypatch):
    monkeypatch.setenv(notices.NOTIFY, "smtp:ops@example.org")
    (mail,) = notices.notifiers("new class <img src=x>")
    assert mail.html_content == "new class &lt;img src=x&gt;"
