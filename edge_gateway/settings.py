"""What can be set, from the environment and as flags. The one place that reads the environment."""

import difflib
import ipaddress
import os
from collections.abc import Sequence
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    FilePath,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

PROGRAM = "edge-gateway"
PREFIX = "RUNWIRE_GATEWAY_"
SHORTEST = 1024


class BootError(Exception):
    """The service cannot start. The message is one line that says what to do."""


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 2**16):
        raise ValueError("must be HOST:PORT, like 127.0.0.1:8080")
    return text


def _items(text: object) -> object:
    return tuple(item.strip() for item in text.split(",") if item.strip()) if isinstance(text, str) else text


def _addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if not addresses:
        raise ValueError("must be HOST:PORT, or several of them, comma-separated")
    return tuple(_address(address) for address in addresses)


def _networks(items: tuple[str, ...]) -> tuple[str, ...]:
    for item in items:
        ipaddress.ip_network(item, strict=False)
    return items


Address = Annotated[str, AfterValidator(_address)]
Items = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_items)]
Size = Annotated[ByteSize, Field(ge=SHORTEST)]


class Settings(BaseSettings):
    """Carries runs to browsers. Every flag is an environment variable too: --ping is RUNWIRE_GATEWAY_PING."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        cli_prog_name=PROGRAM,
        cli_kebab_case=True,
        cli_exit_on_error=False,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        frozen=True,
    )

    listen: Address = Field("127.0.0.1:8080", description="address to listen on, HOST:PORT")
    engine: Annotated[Items, AfterValidator(_addresses)] = Field(
        ("127.0.0.1:50051",), description="addresses of engines, comma-separated"
    )
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
    trusted_proxies: Annotated[Items, AfterValidator(_networks)] = Field(
        (), description="addresses or networks of proxies whose X-Forwarded-For is believed"
    )
    engine_ca: FilePath | None = Field(None, description="PEM file with who signs the engine's certificate")
    engine_cert: FilePath | None = Field(None, description="PEM file with the certificate to show to the engine")
    engine_key: FilePath | None = Field(None, description="PEM file with that certificate's key")
    tls_cert: FilePath | None = Field(None, description="PEM file with the certificate to serve with")
    tls_key: FilePath | None = Field(None, description="PEM file with the certificate's key")

    @property
    def is_loopback(self) -> bool:
        """Whether nobody outside this machine can reach the gateway."""
        host = self.listen.rpartition(":")[0].strip("[]")
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def load(arguments: Sequence[str]) -> Settings:
    """Read the settings, or raise a BootError that says which one is wrong, and why."""
    for name in os.environ:
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in Settings.model_fields:
            known = [PREFIX + field.upper() for field in Settings.model_fields]
            near = difflib.get_close_matches(name, known, n=1)
            raise BootError(f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else "; see --help"))
    try:
        return Settings(_cli_parse_args=list(arguments))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        problem = error.errors()[0]
        name = PREFIX + "_".join(str(part) for part in problem["loc"][:1]).upper()
        raise BootError(f"{name}={problem['input']}: {problem['msg'].removeprefix('Value error, ')}") from error
    except SettingsError as error:
        raise BootError(" ".join(str(error).split())) from error
