"""A private certificate authority for the hosts of a laboratory."""

import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)


class Authority:
    """Signs a certificate for each host, good as server and as client of libvirt and QEMU."""

    def __init__(self) -> None:
        self._key = _new_key()
        self._name = _name("kvmdriver laboratory")
        self.certificate = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def equip(self, directory: str, name: str, address: str, *, days: int = 30) -> None:
        """Lay out what libvirt and QEMU look for below /etc/pki.

        :param days: how long the certificate is good; negative makes one that has expired.
        """
        key = _new_key()
        certificate = (
            _builder(_name(name), self._name, key, days)
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.DNSName(name),
                        x509.IPAddress(ipaddress.ip_address(address)),
                    ]
                ),
                critical=False,
            )
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(_usage(digital_signature=True, key_encipherment=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        for path, content in (
            ("CA/cacert.pem", _pem(self.certificate)),
            ("libvirt/servercert.pem", _pem(certificate)),
            ("libvirt/clientcert.pem", _pem(certificate)),
            ("libvirt/private/serverkey.pem", secret),
            ("libvirt/private/clientkey.pem", secret),
            ("qemu/ca-cert.pem", _pem(self.certificate)),
            ("qemu/server-cert.pem", _pem(certificate)),
            ("qemu/client-cert.pem", _pem(certificate)),
            ("qemu/server-key.pem", secret),
            ("qemu/client-key.pem", secret),
        ):
            target = os.path.join(directory, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(content)


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, days: int = 30
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 60 * _DAY)
        .not_valid_after(now + days * _DAY)
    )


def _usage(**wanted: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names})


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
