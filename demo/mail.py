"""A mail server that keeps what it gets, for the example that sends a mail."""

from __future__ import annotations

import email
import html
import re
import threading
from email.policy import default
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from email.message import EmailMessage
    from types import TracebackType
    from typing import Self

__all__ = ["MailServer", "text_of"]


class MailServer:
    """
    A context manager: it listens on a free port of this machine.

    Attributes:

    - ``mails``: what it got, oldest first.
    """

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        mails = self.mails

        class Handler(StreamRequestHandler):
            timeout = 60

            def handle(self) -> None:
                self._say("220 ready")
                while line := self.rfile.readline():
                    command = line.strip().upper()
                    if command == b"DATA":
                        self._say("354 end with a dot")
                        mails.append(email.message_from_bytes(self._body(), policy=default))
                    self._say("221 bye" if command == b"QUIT" else "250 ok")
                    if command == b"QUIT":
                        return

            def _body(self) -> bytes:
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line.removeprefix(b"."))
                return b"".join(lines)

            def _say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

        class Server(ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,))

    @property
    def connection_uri(self) -> str:
        """An Airflow connection to this server, as for ``AIRFLOW_CONN_SMTP_DEFAULT``."""
        return f"smtp://127.0.0.1:{self._server.server_address[1]}?disable_ssl=true&disable_tls=true"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def text_of(mail: EmailMessage) -> str:
    """Return what a mail says, as plain text on one line."""
    body = mail.get_body()
    text = "" if body is None else body.get_content()
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())
