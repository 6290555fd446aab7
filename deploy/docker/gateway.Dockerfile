# docker build -f deploy/docker/gateway.Dockerfile -t runwire-gateway .      (in the root of the repository)
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY protos protos
COPY runwire runwire
COPY engine_service engine_service
COPY edge_gateway edge_gateway
RUN python -m venv /opt/runwire && \
    /opt/runwire/bin/pip install --no-cache-dir --constraint constraints.txt '.[gateway,telemetry]'

FROM python:3.13-slim
COPY --from=build /opt/runwire /opt/runwire
RUN useradd --system --uid 10001 --no-create-home runwire
USER 10001
ENV PATH=/opt/runwire/bin:$PATH \
    RUNWIRE_GATEWAY_LISTEN=0.0.0.0:8080 RUNWIRE_GATEWAY_OPERATIONS_LISTEN=0.0.0.0:9465
EXPOSE 8080 9465
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9465/healthz', timeout=4)"]
ENTRYPOINT ["edge-gateway"]
