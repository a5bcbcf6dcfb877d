"""Where certificates say that their revocation is to be found: others ask there by plain HTTP, and are told."""

import json
import socket
import subprocess
import urllib.error
import urllib.request

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID

from local_aws import free_port
from mqtt_device import CERTIFICATE
from server import Server, openssl, start
from stack import CVM, until


@pytest.fixture
def published(tmp_path):
    """A server that answers at the address that its certificates name."""
    address = f"127.0.0.1:{free_port()}"
    options = ["--revocation-listen", address, "--revocation-address", f"http://{address}/"]
    server = start(tmp_path / "data", tmp_path, *options)
    yield server
    server.process.kill()
    server.process.wait()


def get(url: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.headers["content-type"], answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers["content-type"], refused.read()


def addresses(certificate: x509.Certificate) -> tuple[str, str, str]:
    """Of the revocation list, of OCSP and of the CA."""
    (point,) = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    told = {description.access_method: description.access_location.value for description in access}
    ocsp, ca = told[AuthorityInformationAccessOID.OCSP], told[AuthorityInformationAccessOID.CA_ISSUERS]
    return point.full_name[0].value, ocsp, ca


def device(server: Server, name: str) -> tuple[x509.Certificate, str]:
    path = server.vend(name, server.register(name)) / CERTIFICATE
    return x509.load_pem_x509_certificate(path.read_bytes()), str(path)


def test_threat_56_openssl_finds_list_ocsp_and_ca_at_the_addresses_of_the_certificate(published: Server, tmp_path):
    certificate, path = device(published, "sn-0001")
    crl, ocsp, ca = addresses(certificate)
    for kind in (ExtensionOID.CRL_DISTRIBUTION_POINTS, ExtensionOID.AUTHORITY_INFORMATION_ACCESS):
        assert not certificate.extensions.get_extension_for_oid(kind).critical

    status, kind, der = get(ca)
    assert (status, kind) == (200, "application/pkix-cert")
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(der))
    status, kind, der = get(crl)
    assert (status, kind) == (200, "application/pkix-crl")
    listed = x509.load_der_x509_crl(der)
    assert listed.issuer == certificate.issuer

    assert openssl("x509", "-noout", "-ocsp_uri", "-in", path).strip() == ocsp
    root, issuing = published.data / "ca" / "root.pem", published.data / "ca" / "issuing.pem"

    def verify() -> str:
        """As a relying party does that has nothing but the CAs: it fetches the list where the certificate says."""
        told = ["openssl", "verify", "-crl_download", "-crl_check", "-CAfile", root, "-untrusted", issuing, path]
        done = subprocess.run(told, capture_output=True, text=True, timeout=30)
        return done.stdout + done.stderr

    def ask() -> str:
        return openssl("ocsp", "-url", ocsp, "-CAfile", root, "-issuer", issuing, "-cert", path)

    assert f"{path}: OK" in verify() and f"{path}: good" in ask()
    assert published.ask("PUT", "/devices/sn-0001", {"status": "disabled"}, if_match="*").status == 200
    until(lambda: "certificate revoked" in verify(), "a list that has it")
    assert f"{path}: revoked" in ask()


def test_each_ca_has_a_list_of_its_own_and_certificates_name_that_of_theirs(published: Server):
    before, _ = device(published, "sn-0001")
    rotated = subprocess.run([CVM, "ca", "rotate", "--data", published.data, "--overlap", "1s"], capture_output=True)
    assert rotated.returncode == 0, rotated.stderr
    vended = [before]

    def next_one_is_of_the_next_ca() -> bool:
        vended.append(device(published, f"sn-{len(vended) + 1:04}")[0])
        return vended[-1].issuer != before.issuer

    until(next_one_is_of_the_next_ca, "a certificate of the next CA")
    until(lambda: published.crl.read_text().count("BEGIN X509 CRL") == 3, "a list of the next CA")
    after = vended[-1]
    assert addresses(before)[0] != addresses(after)[0] and addresses(before)[1] == addresses(after)[1]
    for certificate in (before, after):
        crl, _, ca = addresses(certificate)
        assert x509.load_der_x509_crl(get(crl)[2]).issuer == certificate.issuer
        certificate.verify_directly_issued_by(x509.load_der_x509_certificate(get(ca)[2]))


def test_nothing_else_is_there_and_tls_has_it_too(published: Server):
    certificate, _ = device(published, "sn-0001")
    crl, _, ca = addresses(certificate)
    plain = crl.partition("/crl/")[0]
    for path in ("/", "/livez", "/devices", "/v1/certificates", "/ca.pem", "/crl/", "/crl/x.crl", "/ca/.."):
        assert get(plain + path)[0] == 404, path
    for url in (crl, ca, f"{plain}/crl.pem"):
        assert published.ask("GET", url.removeprefix(plain), token="").body == get(url)[2]
    # What does not speak HTTP is told so, and not waited for.
    host, port = plain.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as silent:
        silent.sendall(b"\x16\x03\x01\x00\x05hello")
        assert silent.recv(1_000).startswith(b"HTTP/1.1 400")


def test_each_list_and_ca_is_there_in_pem_too(published: Server):
    """Some brokers read PEM only, and only the first list of a file."""
    certificate, _ = device(published, "sn-0001")
    crl, _, ca = addresses(certificate)
    shown = subprocess.run([CVM, "ca", "show", "--data", published.data, "--output", "json"], capture_output=True)
    shown = json.loads(shown.stdout)
    names = [authority["publishedAs"] for authority in [shown["root"], *shown["issuing"]]]
    plain = crl.partition("/crl/")[0]
    assert crl == f"{plain}/crl/{names[1]}.crl" and ca == f"{plain}/ca/{names[1]}.cer"
    root = x509.load_pem_x509_certificate((published.data / "ca" / "root.pem").read_bytes())
    for name, issuer in zip(names, (root.subject, certificate.issuer), strict=True):
        status, kind, pem = get(f"{plain}/crl/{name}.pem")
        assert (status, kind, pem.count(b"BEGIN X509 CRL")) == (200, "application/x-pem-file", 1)
        listed = x509.load_pem_x509_crl(pem)
        assert listed.issuer == issuer and listed == x509.load_der_x509_crl(get(f"{plain}/crl/{name}.crl")[2])
        authority = x509.load_pem_x509_certificate(get(f"{plain}/ca/{name}.pem")[2])
        assert authority.subject == issuer and authority == x509.load_der_x509_certificate(get(f"{plain}/ca/{name}.cer")[2])


def test_without_an_address_certificates_name_none(server: Server):
    certificate, _ = device(server, "sn-0001")
    names = {extension.oid._name for extension in certificate.extensions}
    assert not names & {"cRLDistributionPoints", "authorityInfoAccess"}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--revocation-address", "https://pki.example.com", "http://"),
        ("--revocation-address", "pki.example.com", "scheme"),
        ("--revocation-listen", "127.0.0.1:8443", "that of listen"),
    ],
)
def test_what_cannot_be_is_said_before_anything_begins(tmp_path, option, value, said):
    command = [CVM, "serve", "--check", "--data", tmp_path / "data", option, value]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not (tmp_path / "data").exists()
