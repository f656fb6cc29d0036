"""Mail through a real server: taken, refused, busy, encrypted, with a login, away."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.catalog_outlets import MailServer
from gateway.jobs.outbox.mail import send_mail
from gateway.jobs.outbox.not_taken import NotTaken
from tests.mailbox import Mailbox, make_certificate, running_mailbox

NOW = 1_790_000_000.0
TO = ("finance@example.com", "boss@example.com")


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with running_mailbox() as running:
        yield running


def plain(port: int) -> MailServer:
    return MailServer("127.0.0.1", port, "none", None, None, "penstock@example.com")


def test_a_mail_arrives_with_its_text_for_every_recipient_and_an_id_of_its_event(mailbox: Mailbox) -> None:
    assert send_mail(plain(mailbox.port), TO, "80 % is spent\r\nBcc: evil@example.com", "Größe\n", "alert_1", NOW) == []
    (mail,) = mailbox.mails
    assert mailbox.recipients == [list(TO)]
    assert mail["Subject"] == "80 % is spent Bcc: evil@example.com"
    assert mail["Bcc"] is None
    assert (mail["From"], mail["To"]) == ("penstock@example.com", "finance@example.com, boss@example.com")
    assert (mail["Message-ID"], mail["Auto-Submitted"]) == ("<alert_1@example.com>", "auto-generated")
    assert mail.get_content().splitlines() == ["Größe"]


def test_recipients_that_are_refused_do_not_keep_the_mail_from_the_others(mailbox: Mailbox) -> None:
    mailbox.refused = {"boss@example.com"}
    assert send_mail(plain(mailbox.port), TO, "s", "t", "alert_1", NOW) == ["boss@example.com"]
    assert mailbox.recipients == [["finance@example.com"]]
    mailbox.refused = set(TO)
    with pytest.raises(NotTaken, match="refuses every recipient: 550 no such mailbox"):
        send_mail(plain(mailbox.port), TO, "s", "t", "alert_1", NOW)


def test_a_server_that_is_busy_or_away_is_a_failure_that_says_so(mailbox: Mailbox) -> None:
    mailbox.busy = True
    with pytest.raises(NotTaken, match="451 try again later"):
        send_mail(plain(mailbox.port), TO, "s", "t", "alert_1", NOW)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(NotTaken, match="ConnectionRefusedError") as failure:
        send_mail(plain(port), TO, "s", "t", "alert_1", NOW)
    assert failure.value.no_answer


def test_a_login_goes_over_an_encrypted_connection_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path)
    with running_mailbox(certificate, "right") as mailbox:
        known = MailServer("127.0.0.1", mailbox.port, "starttls", "penstock", "right", "penstock@example.com")
        with pytest.raises(NotTaken, match="SSLCertVerificationError"):
            send_mail(known, TO, "s", "t", "alert_1", NOW)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send_mail(known, TO, "s", "t", "alert_1", NOW) == []
        assert len(mailbox.mails) == 1
        wrong = MailServer("127.0.0.1", mailbox.port, "starttls", "penstock", "wr0ng-secret", "penstock@example.com")
        with pytest.raises(NotTaken, match="535") as failure:
            send_mail(wrong, TO, "s", "t", "alert_1", NOW)
        assert "wr0ng-secret" not in str(failure.value)


def test_a_server_without_starttls_gets_nothing_when_it_is_asked_for(mailbox: Mailbox) -> None:
    server = MailServer("127.0.0.1", mailbox.port, "starttls", None, None, "penstock@example.com")
    with pytest.raises(NotTaken, match=smtplib.SMTPNotSupportedError.__name__):
        send_mail(server, TO, "s", "t", "alert_1", NOW)
    assert mailbox.mails == []
