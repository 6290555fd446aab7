# docker build -f deploy/docker/engine.Dockerfile -t runwire-engine .        (in the root of the repository)
# An application adds its agents on top: FROM runwire-engine, COPY my_app /app/my_app, ENV RUNWIRE_ENGINE_AGENTS=my_app
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY protos protos
COPY runwire runwire
COPY engine_service engine_service
COPY edge_gateway edge_gateway
RUN python -m venv /opt/runwire && \
    /opt/runwire/bin/pip install --no-cache-dir --constraint constraints.txt '.[engine,store,telemetry,assistant,broker]'

FROM python:3.13-slim
COPY --from=build /opt/runwire /opt/runwire
RUN useradd --system --uid 10001 --home-dir /app --create-home runwire
WORKDIR /app
USER 10001
ENV PATH=/opt/runwire/bin:$PATH PYTHONPATH=/app \
    RUNWIRE_ENGINE_LISTEN=0.0.0.0:50051 RUNWIRE_ENGINE_OPERATIONS_LISTEN=0.0.0.0:9464
EXPOSE 50051 9464
# SIGTERM drains; whoever stops the container gives it DRAIN_GRACE and a little more.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/healthz', timeout=4)"]
ENTRYPOINT ["engine-service"]
