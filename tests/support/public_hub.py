"""
What a client takes for the public hub, ``https://hub.oxen.ai``, on this machine.

A local hub has a TLS certificate for that name, and a proxy connects to it those who ask for the name. A connection
differs from a user's only in the proxy and in the certificate's CA.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import threading
from typing import TYPE_CHECKING

import trustme

from airflow_provider_oxen.testing import LocalHub
from tests.support.sockets import relay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "hub.oxen.ai"


@contextlib.contextmanager
def public_hub(folder: Path, *, api_key: str = "public-hub-key") -> Iterator[tuple[LocalHub, str]]:
    """
    Run the hub, and yield it with an Airflow connection to it, as JSON.

    :param folder: where the CA's certificate is written.
    """
    ca, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(NAME).configure_cert(tls)
    ca_file = folder / "public-hub-ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    with LocalHub(api_key=api_key, tls=tls) as hub, _proxy(hub.port) as proxy:
        extra = {"proxy": proxy, "verify": str(ca_file)}
        yield hub, json.dumps({"conn_type": "oxen", "password": api_key, "extra": extra})


@contextlib.contextmanager
def _proxy(hub_port: int) -> Iterator[str]:
    clients: set[socket.socket] = set()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            clients.add(self.connection)
            asked = self.rfile.readline().split()
            while self.rfile.readline().strip():
                pass
            if asked[:2] != [b"CONNECT", f"{NAME}:443".encode()]:
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", hub_port)) as hub:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                relay(self.connection, hub)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            for client in clients:  # the server waits for their threads, and the hub is to see them go
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
