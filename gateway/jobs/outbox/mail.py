"""One mail through the configured server; it is in the server's hands or a failure says why not."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime

from gateway.catalog_outlets import MailServer
from gateway.db.tables import moment
from gateway.jobs.outbox.not_taken import NotTaken

DEADLINE_SECONDS = 15.0
"""For each step of the conversation with the server."""


def send_mail(
    server: MailServer, recipients: Sequence[str], subject: str, text: str, event_id: str, now: float
) -> list[str]:
    """Send one mail to all recipients; its Message-ID follows from the event, so that a repetition can be seen as one.

    Returns the recipients that the server has refused although it took others. Raises NotTaken.
    """
    mail = EmailMessage()
    mail["From"] = server.sender
    mail["To"] = ", ".join(recipients)
    mail["Subject"] = " ".join(subject.split())
    mail["Date"] = format_datetime(moment(now))
    mail["Message-ID"] = f"<{event_id}@{server.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text)
    try:
        with _connect(server) as connection:
            if server.username is not None and server.password is not None:
                connection.login(server.username, server.password)
            return sorted(connection.send_message(mail))
    except smtplib.SMTPRecipientsRefused as error:
        reasons = {f"{code} {answer.decode(errors='replace')}" for code, answer in error.recipients.values()}
        raise NotTaken(f"the mail server refuses every recipient: {'; '.join(sorted(reasons))}"[:500]) from None
    except smtplib.SMTPResponseException as error:
        answer = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        raise NotTaken(f"the mail server answers {error.smtp_code} {answer}"[:500], no_answer=True) from None
    except (smtplib.SMTPException, OSError) as error:
        raise NotTaken(
            f"the mail server cannot be used ({type(error).__name__}: {error})"[:500], no_answer=True
        ) from None


def _connect(server: MailServer) -> smtplib.SMTP:
    if server.tls == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(server.host, server.port, timeout=DEADLINE_SECONDS, context=context)
    connection = smtplib.SMTP(server.host, server.port, timeout=DEADLINE_SECONDS)
    if server.tls == "starttls":
        try:
            connection.starttls(context=ssl.create_default_context())
        except BaseException:
            connection.close()
            raise
    return connection
