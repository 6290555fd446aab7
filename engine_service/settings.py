"""What can be set, from the environment and as flags."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    FilePath,
    HttpUrl,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    model_validator,
)
from pydantic_settings import CliImplicitFlag, CliSuppress, NoDecode, SettingsConfigDict

from engine_service import resources
from engine_service.broker.upstream import Upstream, named
from engine_service.wire import Isolation
from runwire.service.settings import (
    Address,
    BootError,
    Endpoint,
    Items,
    Pairs,
    ServiceSettings,
    Size,
    is_loopback,
    items,
)

__all__ = ["BootError", "Settings"]

Layer = Literal["network", "files", "syscalls", "environment", "capabilities", "disk", "agents"]
REQUIRED: tuple[Layer, ...] = ("network", "files", "syscalls", "environment", "capabilities")


class Settings(ServiceSettings):
    """Runs agents. Every flag is an environment variable too: --max-runs is RUNWIRE_ENGINE_MAX_RUNS."""

    program = "engine-service"
    prefix = "RUNWIRE_ENGINE_"
    model_config = SettingsConfigDict(env_prefix=prefix, cli_prog_name=program)

    listen: Address = Field("127.0.0.1:50051", description="address to listen on, HOST:PORT")
    operations_listen: Address = Field(
        "127.0.0.1:9464", description="address for operators, HTTP: /metrics, /healthz, /readyz"
    )
    admin_listen: Address = Field(
        "127.0.0.1:9466", description="address for operators, gRPC: runwire.operations.v1, who see and stop all runs"
    )
    otlp_endpoint: Endpoint | None = Field(None, description="where traces go by OTLP, like http://127.0.0.1:4318")
    otlp_content: CliImplicitFlag[bool] = Field(
        default=False, description="have what is asked, answered and given to tools in traces, too"
    )
    agents: Items = Field((), description="agents, comma-separated: module, module:object or name=module:object")
    demo_agents: bool | None = Field(None, description="have triage and its kin, too; only in development unless said")
    assistant_model: str | None = Field(
        None,
        description="the model of an assistant; whose, say OPENAI_BASE_URL and _API_KEY, or the upstream openai",
    )
    import_timeout: PositiveFloat = Field(60, description="seconds that importing the agents may take")
    run_as: str | None = Field(None, description="user whose rights agents have; for an engine that root starts")
    isolation: Isolation = Field(
        "process", description="where runs of agents happen that don't say: process, jail, ray or task"
    )
    jail_read: Items = Field((), description="files and folders that runs in a jail may read, besides what is needed")
    jail_env: Items = Field((), description="variables of the engine's environment that runs in a jail have")
    jail_disk: Size = Field(ByteSize(64 * 1024 * 1024), description="bytes that a run in a jail may write")
    jail_require: Annotated[tuple[Layer, ...], NoDecode, BeforeValidator(items)] = Field(
        REQUIRED, description="layers of the jail without which the engine doesn't start"
    )
    ray_address: str | None = Field(
        None, description="the Ray cluster for agents with isolation ray: HOST:PORT, auto, or local for one of its own"
    )
    ray_runtime_env: CliSuppress[SecretStr | None] = Field(
        None, description="what its nodes have for runs, as Ray's runtime environments say it, in JSON"
    )
    upstreams: Pairs = Field({}, description="model servers that runs reach without their keys: openai=https://…/v1, …")
    upstream_keys: Pairs = Field({}, description="files that have their keys: openai=/run/secrets/openai, …")
    upstream_auth: Pairs = Field(
        {}, description="how a key is sent: bearer, which is usual, or a header's name, like anthropic=x-api-key"
    )
    upstream_allow: Pairs = Field({}, description="ways out of the provider that are let be: openai=tools+addresses, …")
    tokens_per_run: PositiveInt | None = Field(None, description="tokens of models that one run may use")
    tokens_per_user_per_day: PositiveInt | None = Field(
        None, description="the same for a user and a day; needs a STORE"
    )
    max_runs: PositiveInt = Field(256, description="runs at once")
    max_runs_per_user: PositiveInt = Field(8, description="runs at once of one user")
    max_spares: int = Field(
        16, ge=4, description="processes that may wait for runs; as many do as were lately needed, and at least 4"
    )
    run_timeout: PositiveFloat = Field(600, description="seconds that a run may take")
    ask_timeout: PositiveFloat = Field(600, le=86_400, description="seconds that a question waits that doesn't say")
    run_memory: Size = Field(ByteSize(512 * 1024 * 1024), description="memory that one run may have")
    heartbeat: PositiveFloat = Field(15, description="seconds without an event until a heartbeat is sent")
    stall_timeout: PositiveFloat = Field(60, description="seconds that a caller may take nothing of what it is sent")
    drain_grace: PositiveFloat = Field(
        30, description="seconds that runs have to finish when the engine is told to stop"
    )
    resume_buffer: Size = Field(ByteSize(1024 * 1024), description="bytes of events that a resumable run keeps")
    resume_memory: Size = Field(
        ByteSize(256 * 1024 * 1024), description="bytes of events that all resumable runs keep together"
    )
    max_resume_window: PositiveFloat = Field(3600, description="seconds that a run may outlive its caller")
    store: CliSuppress[SecretStr | None] = Field(
        None, description="what engines share: valkey://, valkeys://, redis:// or rediss://; without it, nothing"
    )
    max_event_bytes: Size = Field(ByteSize(1024 * 1024), description="size that one event may have")
    reload: CliImplicitFlag[bool] = Field(default=False, description="use agents anew when their files change")
    reflection: bool = Field(default=True, description="let grpcurl and its like ask what can be called")
    runs_per_minute: PositiveInt = Field(120, description="runs that one user may start in a minute")
    development: CliImplicitFlag[bool] = Field(
        default=False, description="believe whoever says dev:NAME; on loopback or a named private network alone"
    )
    jwt_secret: CliSuppress[SecretStr | None] = Field(None, description="secret that tokens are signed with (HS256)")
    jwt_secret_file: FilePath | None = Field(None, description="file that has that secret")
    jwt_key_file: FilePath | None = Field(None, description="PEM key or JWKS file for tokens (RS256, ES256, EdDSA)")
    jwt_keys_url: HttpUrl | None = Field(None, description="address of such a JWKS, fetched again now and then")
    jwt_issuer: str | None = Field(None, description="who must have issued a token")
    jwt_audience: str | None = Field(None, description="whom a token must be for")
    jwt_claims: Items = Field((), description="claims of tokens that agents see, comma-separated")
    jwt_agents_claim: str | None = Field(
        None, description="claim that lists patterns of the agents which a caller may run"
    )
    jwt_act_scope: str | None = Field(None, description="scope with which a service may act for users")
    jwt_approve_scope: str | None = Field(None, description="scope with which it may approve of tools for them")
    jwt_operator_scope: str | None = Field(None, description="scope of operators, who see and stop all runs")
    tls_client_ca: FilePath | None = Field(None, description="PEM file with who signs callers' certificates")

    @property
    def has_demo_agents(self) -> bool:
        """Whether there are the built-in agents, too."""
        return self.development if self.demo_agents is None else self.demo_agents

    @model_validator(mode="after")
    def _asks_whom_it_can_know(self) -> Self:
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("TLS_CLIENT_CA needs TLS_CERT and TLS_KEY")
        return self

    @model_validator(mode="after")
    def _knows_users_in_one_way(self) -> Self:
        named = [source for source in KEYS if getattr(self, source)]
        about = [name for name in ABOUT_TOKENS if getattr(self, name)]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(source.upper() for source in named)} exclude each other: set one")
        if self.development and (named or about):
            raise ValueError("DEVELOPMENT believes everybody, and so excludes keys: unset it, or JWT_…")
        if about and not named:
            names = " and ".join(name.upper() for name in about)
            raise ValueError(f"{names} need a key: set JWT_KEY_FILE, JWT_KEYS_URL or JWT_SECRET_FILE")
        if self.jwt_approve_scope and not self.jwt_act_scope:
            raise ValueError("JWT_APPROVE_SCOPE means nothing without JWT_ACT_SCOPE")
        if not (named or self.development):
            raise ValueError(
                "there are no keys to know users by: set RUNWIRE_ENGINE_JWT_KEY_FILE (or JWT_KEYS_URL, "
                "JWT_SECRET_FILE), or, on your own machine, RUNWIRE_ENGINE_DEVELOPMENT=true, which believes everybody"
            )
        return self

    @model_validator(mode="after")
    def _develops_in_private(self) -> Self:
        if self.development and not (self.is_loopback or self.development_network):
            raise ValueError(
                f"DEVELOPMENT believes everybody, and so does not listen on {self.listen}, which is not loopback: set "
                "keys (RUNWIRE_ENGINE_JWT_KEY_FILE), or name a private network in RUNWIRE_ENGINE_DEVELOPMENT_NETWORK"
            )
        return self

    @model_validator(mode="after")
    def _shares_what_it_can_reach(self) -> Self:
        if self.store and self.store.get_secret_value().partition("://")[0] not in STORES:
            raise ValueError(f"STORE begins with one of {', '.join(f'{scheme}://' for scheme in STORES)}")
        return self

    @property
    def model_servers(self) -> tuple[Upstream, ...]:
        """The model servers that are named. Raises ValueError with what is wrong."""
        return named(self.upstreams, self.upstream_keys, self.upstream_auth, self.upstream_allow)

    @model_validator(mode="after")
    def _knows_its_upstreams(self) -> Self:
        servers = self.model_servers
        if (self.tokens_per_run or self.tokens_per_user_per_day) and not servers:
            raise ValueError(
                "TOKENS_PER_RUN and TOKENS_PER_USER_PER_DAY are counted on the way to UPSTREAMS: name some"
            )
        return self

    @model_validator(mode="after")
    def _lets_read_what_there_is(self) -> Self:
        for path in self.jail_read:
            if not Path(path).exists():
                raise ValueError(f"JAIL_READ names {path}, which isn't there")
        return self

    @model_validator(mode="after")
    def _is_a_driver_itself(self) -> Self:
        if self.ray_address and "://" in self.ray_address:
            raise ValueError("RAY_ADDRESS is HOST:PORT, auto or local: the engine is on a node of the cluster itself")
        if self.ray_runtime_env:
            if not self.ray_address:
                raise ValueError("RAY_RUNTIME_ENV means nothing without RAY_ADDRESS")
            try:
                resources.written({"runtime_env": json.loads(self.ray_runtime_env.get_secret_value())})
            except ValueError:  # whose words may have what is secret in it
                raise ValueError("RAY_RUNTIME_ENV has to be a JSON object, of 16 KiB at most") from None
        return self

    @model_validator(mode="after")
    def _counts_days_together(self) -> Self:
        if self.tokens_per_user_per_day and not self.store:
            raise ValueError("TOKENS_PER_USER_PER_DAY is counted in a STORE: set one, or TOKENS_PER_RUN")
        return self

    @model_validator(mode="after")
    def _fetches_keys_unchanged(self) -> Self:
        url = self.jwt_keys_url
        if url and url.scheme != "https" and not is_loopback((url.host or "").strip("[]")):
            raise ValueError(
                "RUNWIRE_ENGINE_JWT_KEYS_URL must begin with https: whoever changes keys on the way is anybody"
            )
        return self


STORES = ("valkey", "valkeys", "redis", "rediss")
"""How a store's address begins."""

KEYS = ("jwt_secret", "jwt_secret_file", "jwt_key_file", "jwt_keys_url")
"""Where keys may come from: one of these."""

ABOUT_TOKENS = (
    "jwt_issuer",
    "jwt_audience",
    "jwt_claims",
    "jwt_agents_claim",
    "jwt_act_scope",
    "jwt_approve_scope",
    "jwt_operator_scope",
)
"""What says how tokens are read."""
