"""TLS by settings: who listens with a certificate is reached by it alone, and one that is none is told."""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI

from quickstudy.config import Serve
from quickstudy.errors import QuickstudyError
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.http import server
from quickstudy.serving.http.app import make_app
from tests.unit.serving.conftest import listening


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """The files of a certificate for this machine, signed by itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    certificate, secret = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return certificate, secret


@pytest.mark.parametrize("together", [False, True])
def test_with_a_certificate_https_is_answered_and_http_is_not(
    make_engine: Callable[..., Engine], tmp_path: Path, together: bool
) -> None:
    certificate, key = make_certificate(tmp_path, "ours")
    trusted = ssl.create_default_context(cafile=str(certificate))
    changes = {"certificate": str(certificate), "certificate_key": str(key)}
    if together:
        certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
        changes["certificate_key"] = None
    engine = make_engine(**changes)
    with listening(make_app(engine.settings, engine), engine.settings) as address:
        assert address.startswith("https://")
        assert httpx.get(f"{address}/ready", verify=trusted).json()["status"] == "ready"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{address}/ready")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address.replace('https', 'http')}/ready")


def test_paths_begin_in_the_project(tiny, tmp_path: Path) -> None:
    make_certificate(tmp_path, "ours")
    settings: Serve = tiny.serve.model_copy(update={"certificate": "ours.pem", "certificate_key": "ours.key"})
    assert server.configured(FastAPI(), settings, tmp_path).is_ssl


def test_what_is_no_certificate_is_one_line(tiny, tmp_path: Path) -> None:
    make_certificate(tmp_path, "ours")
    make_certificate(tmp_path, "theirs")
    (tmp_path / "nonsense").write_text("nonsense")
    for certificate, key, line in (
        ("nowhere", None, "nowhere: there is no such file"),
        ("ours.pem", "nowhere", "nowhere: there is no such file"),
        (".", None, "there is no such file"),
        ("nonsense", None, "nonsense: is no certificate with its key"),
        ("ours.pem", "nonsense", "ours.pem: is no certificate with its key"),
        ("ours.pem", None, "ours.pem: is no certificate with its key"),  # where the key is not in it
        ("ours.pem", "theirs.key", r"ours\.pem: is no certificate with its key .*mismatch"),
    ):
        settings = tiny.serve.model_copy(update={"certificate": certificate, "certificate_key": key})
        with pytest.raises(QuickstudyError, match=line) as caught:
            server.configured(FastAPI(), settings, tmp_path)
        assert "Mend serve.certificate in params.yaml" in str(caught.value) and "\n" not in str(caught.value)
