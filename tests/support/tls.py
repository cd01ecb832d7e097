"""Certificate authorities, and a TLS server in front of PostgreSQL and Redis, whose builds for the tests have no TLS."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
# The message by which a client of PostgreSQL asks for TLS, and the answer to it.
SSL_REQUEST, ACCEPTED = struct.pack(">ii", 8, 80877103), b"S"


class Authority:
    """A certificate authority that signs certificates for 127.0.0.1."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.pem = self._signed(own)

    def issue(self, folder: Path) -> Path:
        """Writes a server's certificate and its key into a file. Returns the file."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
        certificate = self._signed(self._builder(name, key).add_extension(address, critical=False))
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file = folder / f"{x509.random_serial_number()}.pem"
        file.write_bytes(certificate + private)
        return file

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        return builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Mounted:
    """A folder with `ca.crt`, as Kubernetes mounts a Secret: the file is a link through `..data`, a link to a folder that is replaced at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions = 0
        folder.mkdir()
        self.file = folder / "ca.crt"
        self.file.symlink_to("..data/ca.crt")

    def put(self, *authorities: Authority) -> None:
        self._versions += 1
        version = self._folder / f"..{self._versions}"
        version.mkdir()
        (version / "ca.crt").write_bytes(b"".join(each.pem for each in authorities))
        link = self._folder / "..new"
        link.symlink_to(version.name)
        link.rename(self._folder / "..data")


class TlsServer:
    """Ends TLS and forwards to a port of this machine."""

    def __init__(self, port_behind: int, certificate: Path, *, postgres: bool) -> None:
        self._behind = port_behind
        self._postgres = postgres
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.present(certificate)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def present(self, certificate: Path) -> None:
        """Presents this certificate on new connections."""
        self._context.load_cert_chain(certificate)

    def cut(self) -> None:
        """Ends all connections."""
        for writer in tuple(self._open):
            writer.transport.abort()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, 0)

    def close(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if self._postgres:
                assert await reader.readexactly(len(SSL_REQUEST)) == SSL_REQUEST, "a connection without TLS"
                writer.write(ACCEPTED)
            await writer.start_tls(self._context)
            self._open.add(writer)
            there_reader, there = await asyncio.open_connection(HOST, self._behind)
            await asyncio.gather(_pump(reader, there), _pump(there_reader, writer))
        self._open.discard(writer)
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def tls_servers(*servers: TlsServer) -> AsyncIterator[Sequence[TlsServer]]:
    """Runs the servers."""
    try:
        for server in servers:
            await server.start()
        yield servers
    finally:
        for server in servers:
            server.close()
