"""Certificates: what we show, whom we ask for theirs, and how both are read again."""

import ssl
from pathlib import Path

import grpc


class CertificateError(Exception):
    """A certificate that cannot be used. The message says which, and why."""


class Certificates:
    """The files of a server's TLS. Reading them again is for the connections that come after."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._files = (certificate, key, client_ca)
        self._now = self._read()

    def reload(self) -> None:
        """Read the files again. Raises CertificateError, and then those from before stay."""
        self._now = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a gRPC server takes. With a client CA it asks everybody for a certificate."""
        needs_client = self._files[2] is not None
        return grpc.dynamic_ssl_server_credentials(self._now, lambda: self._now, needs_client)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, client_ca = self._files
        try:
            # OpenSSL's own look at them: gRPC would only say that no connection can be made, and that to callers.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            if client_ca:
                context.load_verify_locations(client_ca)
            pair = (key.read_bytes(), certificate.read_bytes())
            roots = client_ca.read_bytes() if client_ca else None
        except OSError as error:
            raise CertificateError(
                f"the certificate {certificate}, its key or the CA cannot be used: {error}"
            ) from error
        return grpc.ssl_server_certificate_configuration([pair], roots)
