"""Carries runs' calls to model servers: HTTP in, HTTP out, with the key that the run does not have."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from engine_service.broker.messages import Called, Refused
from engine_service.broker.meter import NONE, Meter
from engine_service.broker.purse import Purse, Purses
from engine_service.broker.refusal import Refusal
from engine_service.broker.upstream import BEARER, Upstream
from engine_service.broker.vetting import path_of, vetted

CREDENTIALS = ("authorization", "x-api-key", "api-key")
"""Where a run's token can be, one after the other."""
ASKED = ("accept", "anthropic-version")
"""Headers that go on. No other: neither who asks, nor for which organisation, nor what would be tried out, nor a key by
which a provider would answer again what it answered somebody else."""
ANSWERED = ("content-type", "retry-after", "x-request-id", "request-id")
"""Headers that come back. What a provider says of an account's limits tells of all its users."""
TOO_MANY, FAILED, SERVER_FAILED = 429, 400, 500
UNKNOWN = frozenset({401, 403})
"""What a server says that does not know our key; it may repeat parts of it."""
PATIENCE = aiohttp.ClientTimeout(total=None, connect=30, sock_read=600)
READING = 60.0
"""Seconds in which a call has to have been asked."""
WARM = 300.0
"""Seconds that a connection waits for the next call."""
MAX_MODEL = 200
"""Characters of a model's name that are told."""
KEY_AGE = 5.0
"""Seconds after which a key's file is read again."""

Report = Callable[[Called], Awaitable[None]]


class Key:
    """An upstream's key, as its file has it now."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._header: dict[str, str] = {}
        self._until = 0.0

    def header(self) -> Mapping[str, str]:
        """Return the header that has it. Raises OSError."""
        if self._upstream.key_file and time.monotonic() > self._until:
            key = Path(self._upstream.key_file).read_text(encoding="utf-8").strip()
            is_bearer = self._upstream.auth == BEARER
            self._header = {"Authorization": f"Bearer {key}"} if is_bearer else {self._upstream.auth: key}
            self._until = time.monotonic() + KEY_AGE
        return self._header


class Carrier:
    """Carries calls, for all runs."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        purses: Purses,
        session: aiohttp.ClientSession,
        report: Report,
        asked: Callable[[object], None],
        refused: Callable[[Refused], None],
    ) -> None:
        self._upstreams = {name: (upstream, Key(upstream)) for name, upstream in upstreams.items()}
        self._purses = purses
        self._session = session
        self._report = report
        self._asked = asked
        self._refused = refused
        self._count = 0
        self.learn: Callable[[], None] = _nothing
        """Hears what the engine has said by now: a run may be quicker than our ear."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Carry a call, or say why not."""
        try:
            return await self._carry(request)
        except Refusal as refusal:
            self._hear_refusal(request, refusal)
            response = web.Response(status=refusal.status, body=refusal.body(), content_type="application/json")
            if refusal.status == TOO_MANY:
                response.force_close()
            return response

    def _hear_refusal(self, request: web.BaseRequest, refusal: Refusal) -> None:
        """Count it, and tell the engine, as long as somebody may want to know."""
        token = _token(request)
        if self._purses.is_known(token) and self._purses.refuse(token, is_theirs=refusal.status < SERVER_FAILED):
            name, _ = _split(request)
            self._refused(Refused(token, name[:MAX_MODEL], refusal.code, str(refusal)))

    async def _carry(self, request: web.BaseRequest) -> web.StreamResponse:
        purse = self._purse(request)
        name, path = _split(request)
        if name not in self._upstreams:
            raise Refusal(
                404, "upstream", f"There is no model server {name[:100]!r}: there are {', '.join(self._upstreams)}."
            )
        upstream, key = self._upstreams[name]
        where = path_of(path, upstream)
        if request.method != "POST" or request.rel_url.query_string:
            raise Refusal(405, "method", "Models are called by POST, and without a query.")
        self._purses.open(purse)
        call = Call(self._next(), upstream, purse)
        try:
            raw = await self._read(request, call)
            body = vetted(raw, where, upstream)
            call.ask(body, where)
            headers = {each: request.headers[each] for each in ASKED if each in request.headers}
            headers |= {"Content-Type": "application/json", **_key(key)}
            return await self._send(request, call, f"{upstream.url}/{where}", headers, body)
        finally:
            self._purses.close(purse, call.asked, call.spent)

    async def _read(self, request: web.BaseRequest, call: "Call") -> bytes:
        """Read what is asked. Raises Refusal."""
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(READING):
                async for piece in request.content.iter_any():
                    self._purses.ask(call.purse, len(piece))
                    call.asked += len(piece)
                    pieces.append(piece)
        except TimeoutError:
            raise Refusal(408, "slow", "A call has to be asked within a minute.") from None
        return b"".join(pieces)

    def _purse(self, request: web.BaseRequest) -> Purse:
        token = _token(request)
        if not self._purses.is_known(token):
            self.learn()
        purse = self._purses.of(token)
        if request.transport:
            self._asked(request.transport.get_extra_info("peername"))
            self._purses.connect(purse, request.transport)
        return purse

    def _next(self) -> int:
        self._count += 1
        return self._count

    async def _send(
        self, request: web.BaseRequest, call: "Call", url: str, headers: dict[str, str], body: dict[str, object]
    ) -> web.StreamResponse:
        data = json.dumps(body).encode()
        call.is_sent = True
        try:
            async with self._session.post(url, data=data, headers=headers, allow_redirects=False) as answer:
                return await self._answer(request, call, answer)
        except TimeoutError:
            raise Refusal(504, "timeout", "The model's server does not answer.") from None
        except aiohttp.ClientError as error:
            call.is_sent &= not isinstance(error, aiohttp.ClientConnectorError)  # nobody there: it costs nothing
            raise Refusal(502, "unreachable", f"The model's server cannot be reached: {_why(error)}.") from None
        finally:
            await self._tell(call)

    async def _answer(
        self, request: web.BaseRequest, call: "Call", answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        if answer.status in UNKNOWN:
            raise Refusal(answer.status, "key", f"{call.upstream.name} does not take its key: an operator has to look.")
        if 300 <= answer.status < 400:  # noqa: PLR2004 - as HTTP has it
            raise Refusal(502, "redirect", f"{call.upstream.name} wants to be asked elsewhere, which nobody is.")
        meter = call.begin(answer)
        response = web.StreamResponse(status=answer.status)
        for name in ANSWERED:
            if name in answer.headers:
                response.headers[name] = answer.headers[name]
        await response.prepare(request)
        try:
            async for piece in answer.content.iter_any():
                if passed := meter.take(piece):
                    await response.write(passed)
            if rest := meter.finish():
                await response.write(rest)
            await self._tell(call)  # before it ends: or the run may have ended, too
            await response.write_eof()
        except (aiohttp.ClientError, TimeoutError):  # the server broke off: so do we
            _break_off(request)
        except ConnectionError:  # the run is gone
            pass
        return response

    async def _tell(self, call: "Call") -> None:
        """Tell what a call took, once."""
        if call.is_sent and not call.is_reported:
            await asyncio.shield(self._report(call.report()))


class Call:
    """One call, and what it takes."""

    def __init__(self, number: int, upstream: Upstream, purse: Purse) -> None:
        self.number = number
        self.upstream = upstream
        self.meter: Meter | None = None
        self.is_sent = False
        """Whether its server has it: it costs something, whatever becomes of it here."""
        self.purse = purse
        self.asked = 0
        """Bytes of what was asked."""
        self._begun = time.monotonic()
        self._model = ""
        self._status = 0
        self._is_added = False
        self._reported: Called | None = None

    def ask(self, body: dict[str, object], path: str) -> None:
        """Know what is asked, and have the server say what it takes."""
        self._model = str(body.get("model") or "")
        options = body.get("stream_options")
        if (
            path.endswith("completions")
            and body.get("stream")
            and not (isinstance(options, dict) and options.get("include_usage") is True)
        ):
            body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
            self._is_added = True

    def begin(self, answer: aiohttp.ClientResponse) -> Meter:
        """Know that it is answered."""
        self._status = answer.status
        content_type = answer.headers.get("content-type", "")
        self.meter = Meter(content_type, self.asked, self._begun, is_added=self._is_added)
        return self.meter

    @property
    def spent(self) -> int:
        """Tokens that it took."""
        called = self._reported
        return called.input_tokens + called.output_tokens if called else 0

    @property
    def is_reported(self) -> bool:
        """Whether it has been told what it took."""
        return self._reported is not None

    def report(self) -> Called:
        """Say what it took."""
        meter = self.meter or Meter("", self.asked, self._begun, is_added=False)
        tokens = meter.tokens() if self._status < FAILED else NONE
        self._reported = Called(
            number=self.number,
            token=self.purse.grant.token,
            pays=self.purse.grant.pays,
            upstream=self.upstream.name,
            model=(meter.model or self._model)[:MAX_MODEL],
            status=self._status,
            elapsed=time.monotonic() - self._begun,
            to_first_word=meter.to_first_word,
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cached_input_tokens=tokens.cached,
            is_estimate=tokens.is_estimate,
        )
        return self._reported


def _split(request: web.BaseRequest) -> tuple[str, str]:
    """Return which model server is meant, and what of it."""
    _, name, path = (*request.rel_url.raw_path.split("/", 2), "", "")[:3]
    return name, path


def _token(request: web.BaseRequest) -> str:
    said = next((request.headers[name] for name in CREDENTIALS if name in request.headers), "")
    return said.removeprefix("Bearer ").strip()


def _why(error: Exception) -> str:
    """Say why nobody is reached, as whoever operates this reads it."""
    number = getattr(getattr(error, "os_error", None), "errno", None)
    return os.strerror(number).lower() if isinstance(number, int) and number > 0 else type(error).__name__


def _key(key: Key) -> Mapping[str, str]:
    try:
        return key.header()
    except OSError:
        raise Refusal(502, "key", "The key of the model's server cannot be read: an operator has to look.") from None


def _break_off(request: web.BaseRequest) -> None:
    if request.transport:
        with suppress(OSError):
            request.transport.abort()


def _nothing() -> None:
    pass
