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
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, CliImplicitFlag, NoDecode, SettingsConfigDict, SettingsError

PROGRAM = "engine-service"
PREFIX = "RUNWIRE_ENGINE_"
SHORTEST = 1024


class BootError(Exception):
    """The service cannot start. The message is one line that says what to do."""


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 2**16):
        raise ValueError("must be HOST:PORT, like 127.0.0.1:50051")
    return text


def _items(text: object) -> object:
    return tuple(item.strip() for item in text.split(",") if item.strip()) if isinstance(text, str) else text


Address = Annotated[str, AfterValidator(_address)]
Items = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_items)]
Size = Annotated[ByteSize, Field(ge=SHORTEST)]


class Settings(BaseSettings):
    """Runs agents. Every flag is an environment variable too: --max-runs is RUNWIRE_ENGINE_MAX_RUNS."""

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

    listen: Address = Field("127.0.0.1:50051", description="address to listen on, HOST:PORT")
    agents: Items = Field((), description="modules to find agents in, comma-separated")
    max_runs: PositiveInt = Field(256, description="runs at once")
    max_runs_per_user: PositiveInt = Field(8, description="runs at once of one user")
    run_timeout: PositiveFloat = Field(600, description="seconds that a run may take")
    run_memory: Size = Field(ByteSize(512 * 1024 * 1024), description="memory that one run may have")
    heartbeat: PositiveFloat = Field(15, description="seconds without an event until a heartbeat is sent")
    drain_grace: PositiveFloat = Field(
        30, description="seconds that runs have to finish when the engine is told to stop"
    )
    resume_buffer: Size = Field(ByteSize(1024 * 1024), description="events that a resumable run keeps")
    resume_memory: Size = Field(ByteSize(256 * 1024 * 1024), description="events that all resumable runs keep together")
    max_resume_window: PositiveFloat = Field(3600, description="seconds that a run may outlive its caller")
    max_event_bytes: Size = Field(ByteSize(1024 * 1024), description="size that one event may have")
    reload: CliImplicitFlag[bool] = Field(default=False, description="use agents anew when their files change")
    reflection: bool = Field(default=True, description="let grpcurl and its like ask what can be called")
    runs_per_minute: PositiveInt = Field(120, description="runs that one user may start in a minute")
    jwt_secret: SecretStr | None = Field(None, description="secret that tokens are signed with (HS256)")
    jwt_key_file: FilePath | None = Field(None, description="PEM key or JWKS file for tokens (RS256, ES256, EdDSA)")
    jwt_issuer: str | None = Field(None, description="who must have issued a token")
    jwt_audience: str | None = Field(None, description="whom a token must be for")
    tls_cert: FilePath | None = Field(None, description="PEM file with the certificate to serve with")
    tls_key: FilePath | None = Field(None, description="PEM file with the certificate's key")
    tls_client_ca: FilePath | None = Field(None, description="PEM file with who signs callers' certificates")

    @property
    def is_loopback(self) -> bool:
        """Whether nobody outside this machine can reach the engine."""
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
        given = "" if "SECRET" in name else f"={problem['input']}"
        raise BootError(f"{name}{given}: {problem['msg'].removeprefix('Value error, ')}") from error
    except SettingsError as error:
        raise BootError(" ".join(str(error).split())) from error
