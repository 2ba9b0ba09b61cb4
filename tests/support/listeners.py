"""What receives metrics: a statsd server and an OTLP endpoint, as small as they can be."""

from __future__ import annotations

import gzip
import re
import socket
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

#: ``name:value|kind``, where the name may end in tags as InfluxDB has them.
_LINE = re.compile(r"(?P<name>[^:,]+)(?P<tags>(?:,[^:]+)*):(?P<value>[^|]+)\|(?P<kind>c|g|ms)")


class Sample(NamedTuple):
    """One number that arrived."""

    name: str
    kind: str
    value: float
    tags: frozenset[tuple[str, str]] = frozenset()


class Received:
    """What arrived, in order."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._lock = threading.Lock()

    def add(self, sample: Sample) -> None:
        with self._lock:
            self.samples.append(sample)

    def named(self, name: str) -> list[Sample]:
        with self._lock:
            return [sample for sample in self.samples if sample.name == name]

    def names(self) -> set[str]:
        with self._lock:
            return {sample.name for sample in self.samples}

    def sum(self, name: str, **tags: str) -> float:
        """Add up the samples of a counter with these tags, and maybe others."""
        return sum(sample.value for sample in self.named(name) if sample.tags >= set(tags.items()))


class StatsdListener(Received):
    """A context manager: a UDP socket on a free port of the loopback interface."""

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))  # datagrams arrive in order, so all before it were read
        self._thread.join()
        self._socket.close()

    def _receive(self) -> None:
        while datagram := self._socket.recv(65_536):
            for line in datagram.decode().splitlines():
                found = _LINE.fullmatch(line)
                if found is None:  # one of Airflow's own, with a colon in a tag
                    assert ".oxen." not in line, line
                    continue
                tags = frozenset(tuple(tag.split("=", 1)) for tag in found["tags"].split(",")[1:])
                self.add(Sample(found["name"], found["kind"], float(found["value"]), tags))


class QuietHandler(BaseHTTPRequestHandler):
    """Responds to requests without a line for each on standard error."""

    def log_message(self, *_: object) -> None:
        pass


class HttpThread:
    """An HTTP server on a free port of the loopback interface, on a thread of its own, until it is stopped."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = HTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class OtlpListener(Received):
    """
    A context manager: an HTTP server on a free port of the loopback interface, which decodes OTLP's protobuf.

    A counter counts from the start of its process on, so only its last value is kept of each process. Each process is
    expected to have a connection of its own.
    """

    def __enter__(self) -> Self:
        listener = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                listener.paths.add(self.path)
                for sample in _parse(body):
                    listener.add(sample)
                self.send_response(200)
                self.end_headers()

        self.paths: set[str] = set()
        self._server = HttpThread(Handler)
        self.port = self._server.port
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def sum(self, name: str, **tags: str) -> float:
        last: dict[frozenset[tuple[str, str]], float] = defaultdict(float)
        for sample in self.named(name):
            if sample.tags >= set(tags.items()):
                last[sample.tags] = sample.value
        return sum(last.values())


def _parse(body: bytes) -> Iterator[Sample]:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    request = ExportMetricsServiceRequest.FromString(body)
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points:
                    tags = frozenset((each.key, each.value.string_value) for each in point.attributes)
                    value = getattr(point, point.WhichOneof("value")) if kind in ("sum", "gauge") else point.sum
                    yield Sample(metric.name, kind, float(value), tags)
