"""A certificate authority of a run's own, and certificates by it: what a company's private one is to its servers."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from .process import work_root

STORE_PASSWORD = "changeit"
LOCAL = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


class Authority:
    """`ca_file` is what clients trust, `truststore` the same for Java; `context` and `keystore` hold a certificate for 127.0.0.1, for Python and for Java."""

    def __init__(self, name: str = "tls", self_signed: bool = False) -> None:
        """`self_signed`: the server has the authority's own certificate, as set-ups without an authority do."""
        folder = self.folder = work_root() / name
        folder.mkdir(exist_ok=True)
        self.ca_file = folder / "ca.pem"
        self.truststore = folder / "trusted.p12"
        self.keystore = folder / "server.p12"
        ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        ca_name = _name("a private authority")
        ca = _certificate(ca_name, ca_key.public_key(), ca_name).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        if self_signed:
            ca, server_key = ca.add_extension(x509.SubjectAlternativeName([LOCAL]), critical=False), ca_key
        ca = ca.sign(ca_key, hashes.SHA256())
        self._key, self._name = ca_key, ca_name
        address = x509.SubjectAlternativeName([LOCAL])
        server = _certificate(_name("a server"), server_key.public_key(), ca_name).add_extension(address, critical=False)
        server = ca if self_signed else server.sign(ca_key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        self.ca_file.write_bytes(ca.public_bytes(pem))
        chain = folder / "server.pem"
        key = server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        chain.write_bytes(server.public_bytes(pem) + key)
        locked = serialization.BestAvailableEncryption(STORE_PASSWORD.encode())
        self.keystore.write_bytes(pkcs12.serialize_key_and_certificates(b"server", server_key, server, [ca], locked))
        trusted = [pkcs12.PKCS12Certificate(ca, b"authority")]
        self.truststore.write_bytes(pkcs12.serialize_java_truststore(trusted, locked))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain)

    def trusting(self) -> ssl.SSLContext:
        """For clients in Python."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def issue(self, stem: str, subject: str = "a server", names: Sequence[x509.GeneralName] = (LOCAL,)) -> tuple[Path, Path]:
        """A certificate and its key, in the files `<stem>.crt` and `<stem>.key`; files of the same stem are replaced."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(_name(subject), key.public_key(), self._name)
        certificate = certificate.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(self._key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        files = self.folder / f"{stem}.crt", self.folder / f"{stem}.key"
        written = certificate.public_bytes(pem), key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for path, text in zip(files, written, strict=True):
            path.write_bytes(text)
        return files


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _certificate(subject: x509.Name, key, issuer: x509.Name) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
