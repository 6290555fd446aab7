"""What can be set, from the environment and as flags."""

import re
from typing import Self

from pydantic import ByteSize, Field, FilePath, PositiveFloat, PositiveInt, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from runwire.service.settings import Address, Addresses, BootError, Endpoint, Items, Networks, ServiceSettings, Size

__all__ = ["BootError", "Settings"]


class Settings(ServiceSettings):
    """Carries runs to browsers. Every flag is an environment variable too: --ping is RUNWIRE_GATEWAY_PING."""

    program = "edge-gateway"
    prefix = "RUNWIRE_GATEWAY_"
    model_config = SettingsConfigDict(env_prefix=prefix, cli_prog_name=program)

    listen: Address = Field("127.0.0.1:8080", description="address to listen on, HOST:PORT")
    operations_listen: Address = Field(
        "127.0.0.1:9465", description="address for operators, HTTP: /metrics, /healthz, /readyz"
    )
    otlp_endpoint: Endpoint | None = Field(None, description="where traces go by OTLP, like http://127.0.0.1:4318")
    trace_page: str | None = Field(
        None, description="where a trace can be looked at, like https://traces.example.com/trace/{trace_id}"
    )
    engine: Addresses = Field(("127.0.0.1:50051",), description="addresses of engines, comma-separated")
    open_timeout: PositiveFloat = Field(10, description="seconds until a socket has to say what it wants")
    stall_timeout: PositiveFloat = Field(60, description="seconds that a browser may take no byte of what it is sent")
    max_connections: PositiveInt = Field(10_000, description="sockets at once")
    ping: PositiveFloat = Field(20, description="seconds between WebSocket pings")
    drain_grace: PositiveFloat = Field(
        30, description="seconds that sockets have to finish when the gateway is told to stop"
    )
    max_frame_bytes: Size = Field(ByteSize(1024 * 1024), description="size that one frame of a browser may have")
    origins: Items = Field((), description="pages that may open sockets, besides our own; like https://example.com")
    sockets_per_minute: PositiveInt = Field(240, description="sockets that one address may open in a minute")
    trusted_proxies: Networks = Field(
        (), description="addresses or networks of proxies whose X-Forwarded-For is believed"
    )
    engine_ca: FilePath | None = Field(None, description="PEM file with who signs the engine's certificate")
    engine_cert: FilePath | None = Field(None, description="PEM file with the certificate to show to the engine")
    engine_key: FilePath | None = Field(None, description="PEM file with that certificate's key")

    @field_validator("origins")
    @classmethod
    def _names_pages(cls, origins: Items) -> Items:
        """Refuse what is no page's: `null` is whoever hides where it comes from."""
        for origin in origins:
            if not re.fullmatch(r"https?://[^/?#*\s]+/?", origin, re.IGNORECASE):
                raise ValueError(f"{origin} is no origin: one is like https://example.com")
        return origins

    @field_validator("trace_page")
    @classmethod
    def _names_a_trace(cls, page: str | None) -> str | None:
        """Refuse what is no address of a trace: the console makes a link of it."""
        if page and not (re.match(r"https?://", page, re.IGNORECASE) and "{trace_id}" in page):
            raise ValueError(
                f"{page} is no address with {{trace_id}} in it, like https://example.com/trace/{{trace_id}}"
            )
        return page

    @model_validator(mode="after")
    def _knows_the_engine_it_shows_itself_to(self) -> Self:
        if (self.engine_cert or self.engine_key) and not self.engine_ca:
            raise ValueError("ENGINE_CERT and ENGINE_KEY need ENGINE_CA")
        if bool(self.engine_cert) != bool(self.engine_key):
            raise ValueError("ENGINE_CERT and ENGINE_KEY go together: set both, or none")
        return self
