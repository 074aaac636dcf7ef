"""Dialling `/wss` through a proxy that ends TLS: with a certificate of an authority that we trust, and without."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from node.transport_libp2p import Libp2pTransport, open_transport
from tests.contract.test_libp2p_attacks import ECHO, echo, nobody_to_blame
from wire.errors import Unreachable

LIMIT_S = 60.0


def certificate(folder: Path) -> Path:
    """A certificate for `localhost` that is its own authority, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1)
    made = made.not_valid_before(datetime.datetime(2020, 1, 1)).not_valid_after(datetime.datetime(2100, 1, 1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    kind = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    (folder / "pem").write_bytes(pem + secret)
    return folder / "pem"


@asynccontextmanager
async def proxy(bob: Libp2pTransport, pem: Path) -> AsyncIterator[int]:
    """Ends TLS, and passes everything on to Bob; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)

    async def serve(tcp: trio.SocketStream) -> None:
        secure = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
        try:
            await secure.do_handshake()
            onwards = await trio.open_tcp_stream("127.0.0.1", int(bob.addresses()[0].split("/")[4]))
            async with onwards, trio.open_nursery() as nursery:
                nursery.start_soon(copy, secure, onwards)
                await copy(onwards, secure)
                nursery.cancel_scope.cancel()
        except (trio.BrokenResourceError, ssl.SSLError):
            return  # the dialler did not like the certificate
        finally:
            await trio.aclose_forcefully(tcp)

    async def copy(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
        try:
            while data := await one.receive_some(65536):
                await other.send_all(data)
        except trio.BrokenResourceError:
            return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("form", ["/dns4/localhost/tcp/{}/wss", "/ip4/127.0.0.1/tcp/{}/tls/sni/localhost/ws"])
@pytest.mark.parametrize("trusted", [True, False])
async def test_a_proxy_in_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, trusted: bool) -> None:
    pem = certificate(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    async with (
        open_transport(b"b" * 32, listen=["/ip4/127.0.0.1/tcp/0/ws"], blame=nobody_to_blame) as bob,
        open_transport(b"a" * 32, listen=[], blame=nobody_to_blame) as alice,
        proxy(bob, pem) as port,
    ):
        bob.serve(ECHO, echo)
        alice.learn(bob.peer, [form.format(port)])
        with trio.fail_after(LIMIT_S):
            if not trusted:
                with pytest.raises(Unreachable, match="certificate"):
                    await alice.open(bob.peer, ECHO)
                return
            channel = await alice.open(bob.peer, ECHO)
            for size in (0, 1, 500_000):
                await channel.send(bytes(size))
                assert await channel.receive() == bytes(size)
            await channel.aclose()
