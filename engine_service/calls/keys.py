"""What tokens are verified with. Which algorithm that is, the key says, and never the token."""

import asyncio
import json
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jwt
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

MAX_FILE = 1024 * 1024
SHORTEST_SECRET = 32
"""Bytes of a secret for HS256, at least: what is shorter can be guessed by whoever has one token."""
FETCH_TIMEOUT = 5.0
FRESH = 300.0
"""Seconds until keys that were fetched are fetched again."""
PAUSE = 10.0
"""Seconds between two fetches, however many tokens name a key that we don't have."""


class KeysError(Exception):
    """Keys that cannot be used. The message says which, and why."""


class Key(NamedTuple):
    """A key, and the one algorithm it is for."""

    algorithm: str
    key: Any


class Keys(Protocol):
    """The keys there are."""

    async def find(self, kid: str | None) -> Key | None:
        """Return the key that a token names, or the only one there is."""
        ...


class Secret:
    """A secret that whoever makes the tokens shares with us."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SHORTEST_SECRET:
            raise KeysError(f"a secret for tokens must have at least {SHORTEST_SECRET} bytes: this one can be guessed")
        self._key = Key("HS256", secret)

    async def find(self, kid: str | None) -> Key | None:  # noqa: ARG002 - there is only one
        """Return the one key."""
        return self._key


class KeyFile:
    """A PEM key or a JWKS file, read again when it changes: keys are rotated without a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: object = None
        self._keys: dict[str | None, Key] = {}
        self._read(self._look())

    async def find(self, kid: str | None) -> Key | None:
        """Return the key that a token names, or the only one there is."""
        state = self._look()
        if state != self._state:
            try:
                self._read(state)
            except KeysError as error:  # half written, perhaps: the keys we have still are good
                self._state = state
                structlog.get_logger().error("key file not read again", error=str(error))
        return _named(self._keys, kid)

    def _look(self) -> object:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self, state: object) -> None:
        try:
            data = self._path.read_bytes()[:MAX_FILE]
            keys = _pem(data) if b"-----BEGIN" in data else _jwks(data)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, jwt.PyJWTError) as error:
            raise KeysError(f"{self._path} is no PEM key and no JWKS file that can be used: {error}") from error
        if not keys:
            raise KeysError(f"{self._path} has no key for RS256, ES256 or EdDSA")
        self._keys, self._state = keys, state


class KeyAddress:
    """A JWKS at an address, fetched again now and then, and at once when a token names a key that isn't there."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._name = url.rpartition("@")[2]  # without a password
        self._keys: dict[str | None, Key] = {}
        self._fetched = -PAUSE
        self._fetching: asyncio.Task[None] | None = None
        self._log = structlog.get_logger()

    async def fetch(self) -> None:
        """Fetch the keys for the first time. Raises KeysError."""
        self._keys = await asyncio.to_thread(self._fetch)
        self._fetched = time.monotonic()

    async def find(self, kid: str | None) -> Key | None:
        """Return the key that a token names, or the only one there is."""
        age = time.monotonic() - self._fetched
        found = _named(self._keys, kid)
        if age > FRESH or (found is None and age > PAUSE):
            self._fetched = time.monotonic()  # whether it succeeds or not: nobody can make us fetch all the time
            self._fetching = asyncio.create_task(self._refresh())
        if found is None and self._fetching:
            await asyncio.wait((self._fetching,))
            found = _named(self._keys, kid)
        return found

    async def _refresh(self) -> None:
        try:
            self._keys = await asyncio.to_thread(self._fetch)
        except KeysError as error:  # the keys we have still are good
            self._log.error("keys not fetched again", error=str(error))

    def _fetch(self) -> dict[str | None, Key]:
        try:
            with urllib.request.urlopen(self._url, timeout=FETCH_TIMEOUT) as answer:  # noqa: S310 - checked at the boot
                keys = _jwks(answer.read(MAX_FILE))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, jwt.PyJWTError) as error:
            raise KeysError(f"no JWKS can be fetched from {self._name}: {error}") from error
        if not keys:
            raise KeysError(f"{self._name} has no key for RS256, ES256 or EdDSA")
        return keys


def _named(keys: dict[str | None, Key], kid: str | None) -> Key | None:
    """Return the key of a name. One that has none, and one that is the only one, are for tokens that name none."""
    if len(keys) == 1:
        [(name, key)] = keys.items()
        return key if kid is None or name is None or name == kid else None
    return keys.get(kid)


def _pem(data: bytes) -> dict[str | None, Key]:
    if b"CERTIFICATE" in data:
        key: Any = x509.load_pem_x509_certificate(data).public_key()
    elif b"PRIVATE" in data:
        key = load_pem_private_key(data, None).public_key()
    else:
        key = load_pem_public_key(data)
    algorithm = _algorithm(key)
    return {None: Key(algorithm, key)} if algorithm else {}


def _jwks(data: bytes) -> dict[str | None, Key]:
    keys: dict[str | None, Key] = {}
    for described in json.loads(data)["keys"]:
        key = _jwk(described)
        if key is None:
            continue
        if described.get("kid") in keys:
            raise ValueError("two of its keys have the same kid")
        keys[described.get("kid")] = key
    return keys


def _jwk(described: dict[str, Any]) -> Key | None:
    """Return a key that tokens can be verified with. Beside it a file may have others, for encryption or new ones."""
    if described.get("kty") == "oct" or described.get("use", "sig") != "sig":
        return None  # a shared secret in a file of public keys would let whoever reads it make tokens
    if "verify" not in described.get("key_ops", ["verify"]):
        return None
    try:
        key = jwt.PyJWK.from_dict(described).key
    except jwt.PyJWTError:
        return None
    key = key.public_key() if hasattr(key, "public_key") else key
    algorithm = _algorithm(key)
    return Key(algorithm, key) if algorithm and described.get("alg", algorithm) == algorithm else None


def _algorithm(key: Any) -> str | None:
    if isinstance(key, rsa.RSAPublicKey):
        return "RS256"
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return "ES256"
    return "EdDSA" if isinstance(key, ed25519.Ed25519PublicKey) else None
