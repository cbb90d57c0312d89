"""Traces by OpenTelemetry, where they are asked for: a span a request, and a span a call of a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Tracer


def provider(service: str) -> TracerProvider | None:
    """Where spans go: to the endpoint of OTEL_EXPORTER_OTLP_ENDPOINT; None when that is not set."""
    if not (
        os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    ):
        return None
    made = TracerProvider(resource=Resource.create({"service.name": service}))
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made


def trace_requests(app: FastAPI, tracing: TracerProvider) -> None:
    """Give each request a span, named by its route, below the one that its `traceparent` names."""
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")  # the names of today's conventions
    FastAPIInstrumentor.instrument_app(app, tracer_provider=tracing, exclude_spans=["receive", "send"])


@contextmanager
def span(tracer: Tracer | None, name: str, **attributes: str | int) -> Iterator[None]:
    """A span around a piece of work, when there is tracing."""
    if tracer is None:
        yield
        return
    with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes):
        yield
