"""What both services' settings have in common: how they are read, and the types of their values."""

import difflib
import ipaddress
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, FilePath, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

SHORTEST = 1024
LINUX = "linux"
CREDENTIALS = ("jwt_", "tls_", "engine_ca", "engine_cert", "engine_key")
"""What the names of settings begin with whose absence would be a hole."""

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class BootError(Exception):
    """The service cannot start. The message is one line that says what to do."""


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 2**16):
        raise ValueError("must be HOST:PORT, like 127.0.0.1:8080")
    return text


def items(text: object) -> object:
    """Read a list with commas."""
    return tuple(item.strip() for item in text.split(",") if item.strip()) if isinstance(text, str) else text


def _pairs(text: object) -> object:
    if not isinstance(text, str):
        return text
    found = [item.partition("=") for item in text.split(",") if item.strip()]
    if not all(name.strip() and value.strip() for name, _, value in found):
        raise ValueError("must be NAME=VALUE, or several of them, comma-separated")
    return {name.strip(): value.strip() for name, _, value in found}


def _addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if not addresses:
        raise ValueError("must be HOST:PORT, or several of them, comma-separated")
    return tuple(_address(address) for address in addresses)


def _networks(items: tuple[str, ...]) -> tuple[str, ...]:
    for item in items:
        ipaddress.ip_network(item, strict=False)
    return items


def _private(network: str) -> str:
    found = ipaddress.ip_network(network, strict=False)
    if not found.is_private or found.prefixlen == 0:
        raise ValueError("must be a private network, like 172.18.0.0/16: development is never for the public")
    return network


def _endpoint(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https", "grpc", "grpcs"} or not parts.hostname:
        raise ValueError("must be an address, like http://127.0.0.1:4318")
    return address


Endpoint = Annotated[str, AfterValidator(_endpoint)]
Address = Annotated[str, AfterValidator(_address)]
Items = Annotated[tuple[str, ...], NoDecode, BeforeValidator(items)]
Pairs = Annotated[dict[str, str], NoDecode, BeforeValidator(_pairs)]
Addresses = Annotated[Items, AfterValidator(_addresses)]
Networks = Annotated[Items, AfterValidator(_networks)]
PrivateNetwork = Annotated[str, AfterValidator(_private)]
Size = Annotated[ByteSize, Field(ge=SHORTEST)]


class ServiceSettings(BaseSettings):
    """What can be set of either service. Every flag is an environment variable too."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        cli_kebab_case=True,
        cli_exit_on_error=False,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        frozen=True,
        hide_input_in_errors=True,
    )
    program: ClassVar[str]
    prefix: ClassVar[str]

    listen: Address = Field(description="address to listen on, HOST:PORT")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="how much is logged")
    development_network: PrivateNetwork | None = Field(
        None, description="private network, besides loopback, whose callers are believed in development"
    )
    tls_cert: FilePath | None = Field(None, description="PEM file with the certificate to serve with")
    tls_key: FilePath | None = Field(None, description="PEM file with the certificate's key")

    @model_validator(mode="after")
    def _has_a_whole_certificate(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("TLS_CERT and TLS_KEY go together: set both, or none")
        return self

    def is_named(self, field: str) -> bool:
        """Tell whether somebody chose a setting's value."""
        return field in self.model_fields_set

    @property
    def is_loopback(self) -> bool:
        """Whether nobody outside this machine can reach us."""
        return is_loopback(host_of(self.listen))

    @classmethod
    def load(cls, arguments: Sequence[str]) -> Self:
        """Read the settings, or raise a BootError that says which one is wrong, and why."""
        if sys.platform != LINUX:
            raise BootError("it runs on Linux alone: elsewhere, run it in a container or a virtual machine")
        if "--version" in arguments:
            sys.stdout.write(f"{cls.program} {metadata.version('runwire')}\n")
            sys.exit(0)
        for name in os.environ:
            cls._check(name)
        for argument in arguments:
            flag = argument.removeprefix("--").partition("=")[0].replace("-", "_").lower()
            if argument.startswith("--") and flag in cls.model_fields and is_secret(cls, flag):
                raise BootError(
                    f"{argument.partition('=')[0]} is no flag, since everybody can read the flags of a process: "
                    f"set {cls.prefix}{flag.upper()}_FILE to a file that has it"
                )
        try:
            return cls(_cli_parse_args=list(arguments))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        except ValidationError as error:
            problem = error.errors()[0]
            sentence = problem["msg"].removeprefix("Value error, ")
            if not problem["loc"]:  # several settings that do not fit together
                raise BootError(sentence) from None
            field = str(problem["loc"][0])
            # Where a file or an address is asked for, the secret itself may have been given.
            is_telling = field.startswith("jwt_") or "PRIVATE KEY" in str(problem["input"])
            given = "" if is_telling else f"={problem['input']}"
            raise BootError(f"{cls.prefix}{field.upper()}{given}: {sentence}") from None
        except SettingsError:
            raise BootError(cls._wrong_flag(arguments)) from None

    @classmethod
    def _wrong_flag(cls, arguments: Sequence[str]) -> str:
        """Say what is wrong with flags that cannot be read. No value: a secret may have been meant."""
        known = [f"--{field.replace('_', '-')}" for field in cls.model_fields]
        for argument, following in zip(arguments, (*arguments[1:], "--"), strict=True):
            flag, given, _ = argument.partition("=")
            if flag.startswith("--") and flag not in known:
                near = difflib.get_close_matches(flag, known, n=1)
                return f"{flag} is no flag" + (f"; did you mean {near[0]}?" if near else "; see --help")
            if flag in known and not given and following.startswith("--"):
                return f"{flag} needs a value; see --help"
        return "there is an argument that belongs to no flag; see --help"

    @classmethod
    def _check(cls, name: str) -> None:
        """Refuse a variable that means nothing, and a credential that failed to come."""
        if not name.startswith(cls.prefix):
            return
        field = name.removeprefix(cls.prefix).lower()
        if field not in cls.model_fields:
            known = [cls.prefix + field.upper() for field in cls.model_fields]
            near = difflib.get_close_matches(name, known, n=1)
            raise BootError(f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else "; see --help"))
        if field.startswith(CREDENTIALS) and not os.environ[name].strip():
            raise BootError(f"{name} is set and empty, as when a secret failed to be mounted: give it, or unset it")


def is_secret(settings: type[ServiceSettings], field: str) -> bool:
    """Tell whether a setting is nobody else's business."""
    known = settings.model_fields.get(field)
    return known is not None and "SecretStr" in str(known.annotation)


def host_of(address: str) -> str:
    """Return the host of HOST:PORT."""
    return address.rpartition(":")[0].strip("[]")


def host_said(header: str) -> str:
    """Return the host of what a request says in `Host`, with a port or without."""
    return header.partition("]")[0][1:] if header.startswith("[") else header.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, and seen from nowhere else."""
    found = parsed_ip(host)
    return host == "localhost" if found is None else found.is_loopback


def parsed_ip(text: str) -> Ip | None:
    """Read an address; one of IPv4 inside IPv6 is that of IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def holder(address: Ip | None) -> str:
    """Say who has an address. Who has one of IPv6 has them all, up to here."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def is_near(host: str, network: str | None) -> bool:
    """Tell whether a host is this machine, or inside a network."""
    if is_loopback(host):
        return True
    address = parsed_ip(host)
    return network is not None and address is not None and address in ipaddress.ip_network(network, strict=False)
