"""What tokens are verified with. Which algorithm that is, the key says, and never the token."""

import json
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jwt
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

MAX_FILE = 1024 * 1024


class KeyFileError(Exception):
    """A key file that cannot be used. The message says why."""


class Key(NamedTuple):
    """A key, and the one algorithm it is for."""

    algorithm: str
    key: Any


class Keys(Protocol):
    """The keys there are."""

    def find(self, kid: str | None) -> Key | None:
        """Return the key that a token names, or the only one there is."""
        ...


class Secret:
    """A secret that whoever makes the tokens shares with us."""

    def __init__(self, secret: str) -> None:
        self._key = Key("HS256", secret.encode())

    def find(self, kid: str | None) -> Key | None:  # noqa: ARG002 - there is only one
        """Return the one key."""
        return self._key


class KeyFile:
    """A PEM key or a JWKS file, read again when it changes: keys are rotated without a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: object = None
        self._keys: dict[str | None, Key] = {}
        self._read(self._look())

    def find(self, kid: str | None) -> Key | None:
        """Return the key that a token names, or the only one there is."""
        state = self._look()
        if state != self._state:
            try:
                self._read(state)
            except KeyFileError as error:  # half written, perhaps: the keys we have still are good
                self._state = state
                structlog.get_logger().error("key file not read again", error=str(error))
        if len(self._keys) == 1:
            [(name, key)] = self._keys.items()
            return key if kid is None or name is None or name == kid else None
        return self._keys.get(kid)

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
            raise KeyFileError(f"{self._path} is no PEM key and no JWKS file that can be used: {error}") from error
        if not keys:
            raise KeyFileError(f"{self._path} has no key for RS256, ES256 or EdDSA")
        self._keys, self._state = keys, state


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
