"""What the server counts, for Prometheus.

Every label has few values, whatever clients send: routes are templates ("/v1/search"), and what
matches none is "other".
Each server process has its own figures; several behind a proxy are scraped one by one.
"""

from __future__ import annotations

from collections.abc import Callable

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
        decodes: Files decoded, by outcome ("done", "refused", "too_large", "timeout", "crashed", "left").
        decoder_kills: Decoders ended by force, by reason ("time", "left").
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
        self._batches = {
            what: Histogram(
                f"xmodal_batch_{what}",
                f"{said} of a batch of the model.",
                ("name",),
                buckets=buckets,
                registry=self.registry,
            )
            for what, said, buckets in (
                ("size", "Items", _SIZES),
                ("seconds", "Time of computing", _SECONDS),
                ("wait_seconds", "Time that the first item waited", _SECONDS),
            )
        }
        self._watched = gauge("waiting", "What waits now, by queue.", ("queue",))
        self.decodes = counter("decodes", "Audio files decoded.", ("outcome",))
        self.decoder_kills = counter("decoder_kills", "Decoders ended by force.", ("reason",))
        self._cache = counter("cache", "Questions to a cache, by whether it knew the answer.", ("name", "outcome"))
        self._refused = counter("refused", "Requests turned away before any work.", ("reason",))
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

    def batch(self, name: str, size: int, seconds: float, waited_seconds: float) -> None:
        """The model has computed a batch of a kind ("text", "audio"); its first item had waited."""
        for what, value in (("size", size), ("seconds", seconds), ("wait_seconds", waited_seconds)):
            self._batches[what].labels(name).observe(value)

    def watch(self, name: str, value: Callable[[], float]) -> None:
        """Ask how much waits in a queue whenever the figures are read."""
        self._watched.labels(name).set_function(value)

    def cache(self, name: str, hit: bool) -> None:
        """A cache was asked."""
        self._cache.labels(name, "hit" if hit else "miss").inc()

    def refused(self, reason: str) -> None:
        """A request was turned away before any work."""
        self._refused.labels(reason).inc()

    def expose(self) -> tuple[bytes, str]:
        """Everything in Prometheus' text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE
