"""Counters, and their page for Prometheus. Counting is an addition to a dict; names are made when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dockyard.http import Response

if TYPE_CHECKING:
    from dockyard.registry.app import Registry


class Metrics:
    def __init__(self) -> None:
        self.errors: Counter[tuple[int, str]] = Counter()
        self.received = 0
        """Bytes of uploads."""

    async def page(self, registry: Registry) -> Response:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        row = await registry.core.db.search(
            lambda tx: tx.one(
                "SELECT (SELECT COUNT(*) FROM repositories), (SELECT COUNT(*) FROM manifests), (SELECT COUNT(*) FROM"
                " tags), (SELECT COUNT(*) FROM blobs), (SELECT COALESCE(SUM(size), 0) FROM blobs), (SELECT COUNT(*)"
                " FROM uploads), (SELECT COUNT(*) FROM deliveries WHERE due IS NOT NULL)"
            )
        )
        values = row or ()
        served = registry.server.statistics()
        errors = self.errors

        class Collector:
            def collect(self) -> Iterator[Any]:
                names = ("repositories", "manifests", "tags", "blobs", "blob_bytes", "uploads", "webhooks_waiting")
                for name, value in zip(names, values, strict=True):
                    yield GaugeMetricFamily(f"dockyard_registry_{name}", f"{name} in the database", value)
                yield CounterMetricFamily("dockyard_registry_requests", "requests", served.requests)
                yield GaugeMetricFamily("dockyard_registry_connections", "open connections", served.connections)
                failed = CounterMetricFamily("dockyard_registry_errors", "refusals", labels=["status", "code"])
                for (status, code), count in errors.items():
                    failed.add_metric([str(status), code], count)
                yield failed

        collectors = CollectorRegistry(auto_describe=False)
        collectors.register(Collector())
        return Response(200, {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}, generate_latest(collectors))
