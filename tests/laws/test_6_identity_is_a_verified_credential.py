"""Law 6: identity is a verified credential. What is attempted against it, as a table."""

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from runwire.v1 import engine_pb2 as pb
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.certificates import public_pem
from tests.support.clients import caller, frames, kind, said, socket
from tests.support.services import Service
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.times import PATIENCE, UNIT

SECRET = "a secret that is long enough for HS256, and for HS512 too, to be worth something"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
SENTENCE = "You are not signed in, or your sign-in has expired."
OURS = {"JWT_ISSUER": "https://issuer.example", "JWT_AUDIENCE": "runwire"}


def claims(**changed: Any) -> dict[str, Any]:
    good = {"sub": "alice", "iss": "https://issuer.example", "aud": "runwire", "exp": time.time() + 600}
    return {name: value for name, value in (good | changed).items() if value is not None}


def token(key: Any = RSA, algorithm: str = "RS256", headers: dict[str, str] | None = None, **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm, headers)


def unsigned() -> str:
    parts = ({"alg": "none", "typ": "JWT"}, claims())
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def signed_with_the_public_key() -> str:
    """Make what a careless verifier takes: HS256, with the public key's text as the secret."""
    parts = ({"alg": "HS256", "typ": "JWT"}, claims())
    body = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    mac = hmac.new(public_pem(RSA), body, hashlib.sha256).digest()
    return (body + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


ATTACKS: dict[str, Callable[[], str | None]] = {
    "no token": lambda: None,
    "an empty token": lambda: "",
    "no JWT": lambda: "nonsense",
    "a development token": lambda: "dev:alice",
    "alg none": unsigned,
    "HS256 signed with the public key": signed_with_the_public_key,
    "another's key": lambda: token(rsa.generate_private_key(65537, 2048)),
    "another algorithm": lambda: token(EC, "ES256"),
    "expired": lambda: token(exp=time.time() - 31),
    "without an end": lambda: token(exp=None),
    "not yet valid": lambda: token(nbf=time.time() + 60),
    "wrong audience": lambda: token(aud="somebody else"),
    "without audience": lambda: token(aud=None),
    "wrong issuer": lambda: token(iss="https://elsewhere.example"),
    "without issuer": lambda: token(iss=None),
    "without subject": lambda: token(sub=None),
    "an empty subject": lambda: token(sub=""),
    "a long subject": lambda: token(sub="x" * 1000),
    "64 KiB": lambda: token(padding="x" * 64 * 1024),
    "what no header can carry": lambda: "line\nbreak, and \u00e9",
    "a broken signature": lambda: token()[:-6] + "AAAAAA",
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    key = tmp_path_factory.mktemp("keys") / "key.pem"
    key.write_bytes(public_pem(RSA))
    with start_engine(JWT_KEY_FILE=str(key), **OURS) as back, start_gateway(back.address) as front:
        yield back, front


async def attempt(address: str, credential: str | None, agent: str = "echo") -> Any:
    """Return how a run with a credential ends: an event, or an error."""
    metadata = () if credential is None else (("authorization", f"Bearer {credential}"),)
    async with caller(address) as somebody:
        try:
            call = somebody.stub.Run(pb.RunRequest(agent=agent), metadata=metadata)
            return [kind(event) async for response in call for event in response.events][-1]
        except grpc.aio.AioRpcError as error:
            return error


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacks(guarded: tuple[Service, Service], attack: str) -> None:
    """Each is refused with the same sentence, over gRPC and through a socket, and tells nothing of what was wrong."""
    back, front = guarded
    credential = ATTACKS[attack]()
    if credential is None or (credential.isascii() and credential.isprintable()):  # or gRPC's own client refuses it
        error = await attempt(back.address, credential)
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, SENTENCE)
    async with socket(front.address) as connection:
        await connection.send(json.dumps({"accessToken": credential or "", "run": {"agent": "echo"}}))
        assert await frames(connection) == []
        assert (connection.close_code, connection.close_reason) == (4016, SENTENCE)


async def test_a_good_token(guarded: tuple[Service, Service]) -> None:
    """A token that is signed, for us, from whom we expect, and in its time lets its subject in, however it arrives."""
    back, front = guarded
    assert await attempt(back.address, token()) == "agent_completed"
    assert await attempt(back.address, token(exp=time.time() - 20)) == "agent_completed"  # clocks differ
    for opening, headers in (
        ({"accessToken": token(), "run": {"agent": "echo"}}, {}),
        ({"run": {"agent": "echo"}}, {"Authorization": f"Bearer {token()}"}),
    ):
        async with socket(front.address, additional_headers=headers) as connection:
            await connection.send(json.dumps(opening))
            await frames(connection)
            assert connection.close_code == 1000


async def test_a_token_in_the_address(guarded: tuple[Service, Service]) -> None:
    """A token in the query string is refused, so that nobody gets used to it."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(f"ws://{guarded[1].address}/v1/stream?access_token={token()}"):
            pass
    assert caught.value.response.status_code == 400


async def test_anothers_run(guarded: tuple[Service, Service]) -> None:
    """Another user's run does not exist: NOT_FOUND, and never PERMISSION_DENIED."""
    run_id = "123e4567-e89b-42d3-a456-426614174000"
    alice = (("authorization", f"Bearer {token()}"),)
    mallory = (("authorization", f"Bearer {token(sub='mallory')}"),)
    async with caller(guarded[0].address) as both:
        call = both.stub.Run(pb.RunRequest(agent="waiter", run_id=run_id), metadata=alice)
        assert await said(call) == "waiting"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await both.stub.Cancel(pb.CancelRequest(run_id=run_id), metadata=mallory)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await both.stub.Cancel(pb.CancelRequest(run_id=run_id.replace("1", "2")), metadata=mallory)
        assert caught.value.details() == "You have no such run."
        call.cancel()


async def test_what_needs_no_token(guarded: tuple[Service, Service]) -> None:
    """Health is for everybody; reflection, and the list of agents, are not."""
    async with caller(guarded[0].address) as stranger:
        health: Any = HealthStub(stranger.channel)
        assert (await health.Check(HealthCheckRequest())).status == 1
        reflection: Any = ServerReflectionStub(stranger.channel)  # type: ignore[arg-type]
        for credential, allowed in ((None, False), (token(), True)):
            metadata = () if credential is None else (("authorization", f"Bearer {credential}"),)
            call = reflection.ServerReflectionInfo(iter([ServerReflectionRequest(list_services="")]), metadata=metadata)
            try:
                assert (await call.read()).list_services_response.service
                assert allowed
            except grpc.aio.AioRpcError as error:
                assert not allowed
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stranger.stub.ListAgents(pb.ListAgentsRequest())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")])
async def test_each_kind_of_key(tmp_path: Path, key: Any, algorithm: str) -> None:
    """RSA, P-256 and Ed25519 keys work, as PEM and in a JWKS file, whose keys can be rotated without a restart."""
    file = tmp_path / "keys"
    file.write_bytes(public_pem(key))
    with start_engine(JWT_KEY_FILE=str(file)) as back:
        assert await attempt(back.address, token(key, algorithm)) == "agent_completed"
        described = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key()))
        strange = [{"kty": "oct", "k": "c2VjcmV0"}, {"kty": "XYZ"}, described | {"kid": "enc", "use": "enc"}]
        file.write_text(json.dumps({"keys": [*strange, described | {"kid": "new"}]}))
        rotated = token(key, algorithm, {"kid": "new"})
        patience = time.monotonic() + PATIENCE
        while await attempt(back.address, rotated) != "agent_completed":
            assert time.monotonic() < patience
        assert (await attempt(back.address, token(key, algorithm, {"kid": "old"}))).code().name == "UNAUTHENTICATED"
        file.write_text("half writ")  # as while it is being saved: the keys from before still are good
        assert await attempt(back.address, rotated) == "agent_completed"


async def test_a_shared_secret() -> None:
    """With `JWT_SECRET`, HS256 tokens are verified, and development tokens are nothing any more."""
    with start_engine(JWT_SECRET=SECRET) as back:
        assert await attempt(back.address, token(SECRET, "HS256")) == "agent_completed"
        for wrong in (token(SECRET + "!", "HS256"), token(SECRET, "HS512"), token(), "dev:alice", None):
            assert (await attempt(back.address, wrong)).code() is grpc.StatusCode.UNAUTHENTICATED
    assert not [record for record in back.records if SECRET in str(record)]


async def test_a_secret_from_a_file(tmp_path: Path) -> None:
    """With `JWT_SECRET_FILE` the secret is what the file has; the scheme of a token may be written in any case."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    with start_engine(JWT_SECRET_FILE=str(file)) as back:
        assert await attempt(back.address, token(SECRET, "HS256")) == "agent_completed"
        for scheme in ("bearer", "BEARER", "bEaReR"):
            metadata = (("authorization", f"{scheme} {token(SECRET, 'HS256')}"),)
            async with caller(back.address) as somebody:
                call = somebody.stub.Run(pb.RunRequest(agent="echo"), metadata=metadata)
                assert [kind(event) async for response in call for event in response.events][-1] == "agent_completed"


class Keys(http.server.BaseHTTPRequestHandler):
    """Serves a JWKS, and counts who asks."""

    asked = 0
    document: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        type(self).asked += 1
        body = json.dumps(self.document).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _public_jwk(key: Any, kid: str) -> dict[str, Any]:
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())), "kid": kid}


async def test_keys_by_address() -> None:
    """Keys are fetched from `JWT_KEYS_URL`, again when a token names a new one, and not for each token that does."""
    old, new = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048)
    Keys.asked, Keys.document = 0, {"keys": [_public_jwk(old, "old")]}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with start_engine(JWT_KEYS_URL=f"http://127.0.0.1:{server.server_port}/keys") as back:
                assert await attempt(back.address, token(old, headers={"kid": "old"})) == "agent_completed"
                Keys.document = {"keys": [_public_jwk(old, "old"), _public_jwk(new, "new")]}
                patience = time.monotonic() + 2 * UNIT * PATIENCE
                while await attempt(back.address, token(new, headers={"kid": "new"})) != "agent_completed":
                    assert time.monotonic() < patience  # at most every 10 s
                for _ in range(20):
                    error = await attempt(back.address, token(new, headers={"kid": "another"}))
                    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert Keys.asked <= 3
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("url", "says"), [("http://127.0.0.1:1/keys", "no JWKS can be fetched"), ("http://192.0.2.1/keys", "https")]
)
def test_keys_that_cannot_be_fetched(url: str, says: str) -> None:
    """Keys that are not there, or would come in clear from elsewhere, stop the boot."""
    with start_engine(JWT_KEYS_URL=url) as back:
        assert back.wait() == 2
        assert says in back.lines[0]


async def test_what_an_agent_says_to_its_user_is_not_logged() -> None:
    """An AgentError's sentence is for the user: the log has the reason, and no word of it."""
    with start_engine(agents="tests.agents.rogues") as back:
        async with caller(back.address) as alice:
            events = await alice.run("rogue", "fail")
            assert events[-1].agent_failed.message == "The shop is closed."
        record = back.wait_for(lambda record: record["event"] == "run ended")
        assert record["reason"] == "agent_error"
        assert "shop" not in str(back.records)


def test_issuer_and_audience_need_a_key() -> None:
    """Settings that would say nothing without a key stop the boot."""
    with start_engine(JWT_ISSUER="https://issuer.example") as back:
        assert back.wait() == 2
        assert "need a key" in back.lines[0]


async def test_a_token_that_expires_during_a_run() -> None:
    """A run that was let in goes on: its token is asked for once."""
    with start_engine(JWT_SECRET=SECRET) as back:
        soon = token(SECRET, "HS256", exp=time.time() - 26)
        async with caller(back.address) as somebody:
            request = pb.RunRequest(agent="ticker")
            call = somebody.stub.Run(request, metadata=(("authorization", f"Bearer {soon}"),))
            assert [kind(event) async for response in call for event in response.events][-1] == "agent_completed"
            patience = time.monotonic() + PATIENCE
            while await attempt(back.address, soon) == "agent_completed":  # the 30 s that clocks may differ aren't over
                assert time.monotonic() < patience


def test_nothing_secret_is_logged(guarded: tuple[Service, Service]) -> None:
    """No token, input or output is in either log."""
    for service in guarded:
        text = json.dumps(service.records)
        assert "eyJ" not in text
        assert "Bearer" not in text


async def test_the_log_says_whose_and_which(guarded: tuple[Service, Service]) -> None:
    """Each line about a run has its id, its user's, and its trace's."""
    back, front = guarded
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    opening = {"accessToken": token(), "traceparent": f"00-{trace}-00f067aa0ba902b7-01", "run": {"agent": "echo"}}
    async with socket(front.address) as connection:
        await connection.send(json.dumps(opening))
        [run_id] = {json.loads(frame)["runId"] for frame in await frames(connection)}
    record = back.wait_for(lambda record: record["event"] == "run ended" and record.get("trace_id") == trace)
    assert (record["run_id"], record["user_id"], record["agent"]) == (run_id, "alice", "echo")
