"""Metrics of the server for Prometheus, and the last requests for the status page."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from ..inference.tally import Tally
from .queue import DeviceQueue

_RECENT = 12

_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


@dataclass(frozen=True)
class Finished:
    """A finished request.

    Attributes:
        at: time, seconds since 1970.
        prompts: number of prompts; None if the request was for something else.
    """

    at: float
    route: str
    prompts: int | None
    status: int
    seconds: float


class _MeasuredTally(Tally):
    """A tally that also records the duration of each piece of work."""

    def __init__(self, stages: Histogram) -> None:
        super().__init__()
        self._stages = stages

    @contextmanager
    def measure_time(self, stage: str) -> Iterator[None]:
        with super().measure_time(stage), self._stages.labels(stage).time():
            yield


class _Pairs(Collector):
    """Counts patch pairs by whether their embedding was computed or cached."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[CounterMetricFamily]:
        pairs = CounterMetricFamily("wsisam_pairs", "Patch pairs asked for", labels=["embedding"])
        pairs.add_metric(["computed"], self._tally.pairs_embedded)
        pairs.add_metric(["cached"], self._tally.pairs_cached)
        yield pairs
        stored = CounterMetricFamily("wsisam_patches_stored", "Encoded patches read from the disk")
        stored.add_metric([], self._tally.patches_stored)
        yield stored
        prompts = CounterMetricFamily("wsisam_prompts", "Prompts answered")
        prompts.add_metric([], self._tally.prompts_answered)
        yield prompts


class Metrics:
    """Metrics of one server.

    Attributes:
        tally: counts and times the model's work.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._stages = Histogram(
            "wsisam_stage_seconds",
            "Time of each piece of work: read, encode, decode, outline; queue is the wait",
            ["stage"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._requests = Histogram(
            "wsisam_request_seconds",
            "Time of each request, to the end of its answer",
            ["route"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._statuses = Counter(
            "wsisam_requests", "Requests answered", ["route", "status"], registry=self._registry
        )
        self._prepared = Counter(
            "wsisam_prepared",
            "Spots under a resting cursor: answered, or dropped for the next",
            ["outcome"],
            registry=self._registry,
        )
        self._recent: deque[Finished] = deque(maxlen=1000)
        self.tally: Tally = _MeasuredTally(self._stages)
        self._registry.register(_Pairs(self.tally))

    def watch(self, device_queue: DeviceQueue) -> None:
        """Report the length of the device queue."""
        in_hand = Gauge("wsisam_requests_in_hand", "Computing or waiting", registry=self._registry)
        in_hand.set_function(lambda: device_queue.in_hand)
        waiting = Gauge("wsisam_queue_length", "Waiting for their turn", registry=self._registry)
        waiting.set_function(lambda: device_queue.waiting)

    def observe_wait(self, seconds: float) -> None:
        """Record how long a piece of work waited for the device."""
        self._stages.labels("queue").observe(seconds)

    def observe_prepared(self, outcome: Literal["answered", "dropped"]) -> None:
        """Count a spot that was asked for ahead of time."""
        self._prepared.labels(outcome).inc()

    def observe_request(self, route: str, status: int, seconds: float, prompts: int | None) -> None:
        """Record a finished request."""
        self._requests.labels(route).observe(seconds)
        self._statuses.labels(route, str(status)).inc()
        if prompts is not None:
            self._recent.appendleft(Finished(time.time(), route, prompts, status, seconds))

    @property
    def recent(self) -> list[Finished]:
        """List the last requests with prompts, the latest first."""
        return list(islice(self._recent.copy(), _RECENT))

    def text(self) -> bytes:
        """Give the metrics in Prometheus' text format."""
        return generate_latest(self._registry)
