"""What the server counts, for Prometheus.

Every label has few values, whatever clients send: routes are templates ("/v1/search"), and what
matches none is "other".
Each server process has its own figures; several behind a proxy are scraped one by one.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server; each has a registry of its own, so that two servers in a process do not mix.

    Attributes:
        batch_size: Items in a batch of the model, by kind ("text", "audio").
        queue_length: Items that wait for a batch now, by kind.
        decodes: Files decoded, by outcome ("done", "refused", "too_long", "killed", "crashed").
        decoder_kills: Decoders ended by force, by reason ("time", "left", "closed").
        cache: Queries whose vector was known ("hit") or not ("miss").
        refused: Requests turned away before any work, by reason.
        upload_bytes: Bytes of uploads that lie on disk now.
        body_bytes: Bytes of request bodies that are being received or worked on now.
        tracks: Tracks in the catalogue.
        rows: Rows in the index.
        reloads: Swaps of model and index, by outcome ("done", "refused").
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, descriptors, CPU time
        PlatformCollector(registry=self.registry)

        def counter(name: str, what: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"xmodal_{name}", what, labels, registry=self.registry)

        def gauge(name: str, what: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"xmodal_{name}", what, labels, registry=self.registry)

        self._requests = counter("requests", "Requests answered.", ("method", "route", "status"))
        self._seconds = Histogram(
            "xmodal_request_seconds",
            "From the request's head to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._under_way = gauge("requests_under_way", "Requests being answered now.")
        self.batch_size = Histogram(
            "xmodal_batch_size", "Items in a batch of the model.", ("kind",), buckets=_SIZES, registry=self.registry
        )
        self.queue_length = gauge("queue_length", "Items that wait for a batch.", ("kind",))
        self.decodes = counter("decodes", "Audio files decoded.", ("outcome",))
        self.decoder_kills = counter("decoder_kills", "Decoders ended by force.", ("reason",))
        self.cache = counter("query_cache", "Text queries by whether their vector was known.", ("outcome",))
        self.refused = counter("refused", "Requests turned away before any work.", ("reason",))
        self.upload_bytes = gauge("upload_bytes", "Bytes of uploads on disk.")
        self.body_bytes = gauge("body_bytes", "Bytes of request bodies under way.")
        self.tracks = gauge("tracks", "Tracks in the catalogue.")
        self.rows = gauge("rows", "Rows in the index.")
        self.reloads = counter("reloads", "Swaps of model and index.", ("outcome",))

    def begin(self) -> None:
        """A request has come."""
        self._under_way.inc()

    def end(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """A request is over.

        Args:
            method: Of the request; rare ones are counted together.
            route: The template that it matched, never its path; None if none did.
            status: Of the answer; 499 if the client left before it began.
            seconds: What it took.
        """
        self._under_way.dec()
        route = route or "other"
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text format (:data:`CONTENT_TYPE`)."""
        return generate_latest(self.registry)
