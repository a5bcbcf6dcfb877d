"""EST (RFC 7030) as clients speak it to `cvm serve`: curl with openssl, and strongSwan's pki."""

import email
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from server import Server, openssl, start

EST = ".well-known/est"
PKI = shutil.which("pki")

@dataclass
class EstDevice:
    """A device with files as firmware has them, and curl and pki as its client."""

    server: Server
    id: str
    token: str
    folder: Path

    @classmethod
    def register(cls, server: Server, device_id: str, **cvm: object) -> "EstDevice":
        made = server.ask("PUT", f"/devices/{device_id}", {"cvm": cvm} if cvm else {})
        assert made.status == 200, made.body
        token = made.json["authentication"]["symmetricKey"]["primaryKey"]
        folder = server.folder / f"est-{device_id}"
        folder.mkdir()
        device = cls(server, device_id, token, folder)
        device.make_request("device", f"/CN={device_id}")
        return device

    def make_request(self, name: str, subject: str) -> Path:
        """A new key, and its signing request in DER."""
        request = self.folder / f"{name}.csr"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        files = ["-keyout", self.folder / f"{name}.key", "-out", request]
        openssl("req", "-new", *curve, "-subj", subject, "-outform", "DER", *files)
        return request

    def curl(self, operation: str, *options: object) -> subprocess.CompletedProcess:
        command = ["curl", "-sS", "-f", "--cacert", self.server.ca, *options, f"{self.server.url}/{EST}/{operation}"]
        return subprocess.run(command, capture_output=True)

    def post(self, operation: str, *options: object, name: str = "device") -> subprocess.CompletedProcess:
        text = self.folder / f"{name}.b64"
        text.write_text(openssl("base64", "-in", self.folder / f"{name}.csr"))
        typed = ["-H", "Content-Type: application/pkcs10", "-H", "Content-Transfer-Encoding: base64"]
        return self.curl(operation, *typed, "--data-binary", f"@{text}", *options)

    def enroll(self, operation: str = "simpleenroll", *options: object, name: str = "device") -> str:
        options = options or ("--user", f"{self.id}:{self.token}")
        done = self.post(operation, *options, name=name)
        assert done.returncode == 0, done.stderr
        (certificate,) = certificates(done.stdout, self.folder)
        (self.folder / f"{name}.pem").write_text(certificate)
        return certificate

    def pki(self, command: str, *options: object) -> subprocess.CompletedProcess:
        # It reads one certificate from a file, which is the root of ca.pem.
        issuing = self.server.data / "ca" / "issuing.pem"
        url = ["--url", self.server.url, "--cacert", self.server.ca, "--cacert", issuing]
        return subprocess.run([PKI, command, *url, *options], capture_output=True, timeout=60, cwd=self.folder)

    def pki_enroll(self, user: str) -> subprocess.CompletedProcess:
        request = ["--in", self.folder / "device.csr", "--outform", "pem"]
        # Without an end it would ask for ever.
        return self.pki("--est", *request, "--userpass", user, "--interval", "1", "--maxpolltime", "15")


def certificates(base64: bytes, folder: Path) -> list[str]:
    """The certificates of an answer, in PEM, in their order. Its base64 is on one line."""
    assert b"\n" not in base64 and b"\r" not in base64
    text, der = folder / "answer.b64", folder / "answer.p7"
    text.write_bytes(base64)
    openssl("base64", "-d", "-A", "-in", text, "-out", der)
    shown = openssl("pkcs7", "-inform", "DER", "-in", der, "-print_certs")
    return [f"{block}\n" for block in re.findall(r"-----BEGIN.*?-----END CERTIFICATE-----", shown, re.DOTALL)]


def serial(certificate: Path) -> str:
    return openssl("x509", "-in", certificate, "-noout", "-serial")


@pytest.fixture
def device(server: Server) -> EstDevice:
    return EstDevice.register(server, "sn-0001")


def test_curl_and_openssl_are_a_client(device: EstDevice):
    done = device.curl("cacerts")
    assert done.returncode == 0, done.stderr
    issuing, root = certificates(done.stdout, device.folder)
    assert root + issuing == device.server.ca.read_text(), "the file has the root first"

    first = device.enroll()
    certificate = device.folder / "device.pem"
    verified = openssl("verify", "-CAfile", device.server.ca, "-purpose", "sslclient", certificate)
    assert "OK" in verified
    assert "CN = sn-0001" in openssl("x509", "-in", certificate, "-noout", "-subject")
    pub = openssl("pkey", "-in", device.folder / "device.key", "-pubout")
    assert openssl("x509", "-in", certificate, "-noout", "-pubkey") == pub
    # The answer was lost.
    assert device.enroll() == first
    trail = device.server.ask("GET", "/audit?device=sn-0001").json
    assert [(entry["action"], entry["door"]) for entry in trail][:1] == [("provisioned", "est")]


def test_the_attributes_are_what_openssl_reads(device: EstDevice):
    done = device.curl("csrattrs")
    text, der = device.folder / "attributes.b64", device.folder / "attributes.der"
    text.write_bytes(done.stdout)
    openssl("base64", "-d", "-A", "-in", text, "-out", der)
    shown = openssl("asn1parse", "-inform", "DER", "-in", der)
    assert re.findall(r"OBJECT\s*:(\S+)", shown) == ["id-ecPublicKey", "prime256v1", "ecdsa-with-SHA256"]


def test_a_key_is_made_for_a_device_that_cannot(server: Server):
    device = EstDevice.register(server, "sn-0002", keyOrigin="service")
    done = device.post("serverkeygen", "--user", f"sn-0002:{device.token}", "-D", "-")
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    kind = next(line for line in head.decode().splitlines() if line.lower().startswith("content-type:"))
    message = email.message_from_bytes(f"{kind}\n\n".encode() + body)
    key, certified = message.get_payload()
    assert (key.get_content_type(), certified.get_content_type()) == ("application/pkcs8", "application/pkcs7-mime")
    assert certified.get_param("smime-type") == "certs-only"
    (device.folder / "made.p8").write_bytes(key.get_payload(decode=True))
    (certificate,) = certificates(certified.get_payload().strip().encode(), device.folder)
    (device.folder / "made.pem").write_text(certificate)
    pub = openssl("pkey", "-inform", "DER", "-in", device.folder / "made.p8", "-pubout")
    assert openssl("x509", "-in", device.folder / "made.pem", "-noout", "-pubkey") == pub
    refused = EstDevice.register(server, "sn-0003")
    assert refused.post("serverkeygen", "--user", f"sn-0003:{refused.token}").returncode == 22
    everything = server.log.read_text()
    secrets = [key.get_payload().strip(), device.token]
    assert not any(secret in everything for secret in secrets)


def test_threat_01_whoever_may_not_is_told_the_same(device: EstDevice):
    stranger = EstDevice(device.server, "sn-9999", device.token, device.folder / "stranger")
    stranger.folder.mkdir()
    stranger.make_request("device", "/CN=sn-9999")
    wrong = "wrong-token-0123456789-0123456789-0123456789"
    show = ["-o", "-", "-w", "%{http_code}"]
    refusals = [
        device.post("simpleenroll", "--user", f"sn-0001:{wrong}", *show),
        stranger.post("simpleenroll", "--user", f"sn-9999:{device.token}", *show),
        stranger.post("simplereenroll", "--user", f"sn-9999:{device.token}", *show),
    ]
    for refused in refusals:
        assert (refused.returncode, refused.stdout) == (22, refusals[0].stdout), refused
    assert refusals[0].stdout.endswith(b"403")
    asked = device.post("simpleenroll", *show)
    assert (asked.returncode, asked.stdout[-3:]) == (22, b"401")
    # A client that waits to be asked gets in.
    device.enroll("simpleenroll", "--anyauth", "--user", f"sn-0001:{device.token}")


def test_a_label_is_found_where_it_was_given(tmp_path):
    server = start(tmp_path / "data", tmp_path, "--est-label", "factory")
    try:
        device = EstDevice.register(server, "sn-0001")
        first = device.enroll("factory/simpleenroll")
        assert device.enroll() == first
        assert device.curl("other/cacerts").returncode == 22
    finally:
        server.process.kill()
        server.process.wait()


def test_strongswan_is_a_client(device: EstDevice):
    assert PKI, "pki is missing: install it (Debian: strongswan-pki and libstrongswan-standard-plugins)"
    done = device.pki("--estca", "--caout", "ca.pem", "--outform", "pem")
    assert done.returncode == 0, done.stderr.decode()
    found = {file.name: file.read_text() for file in device.folder.glob("ca*.pem")}
    bundle = device.server.ca.read_text()
    assert len(found) == 2 and all(openssl_same(text, bundle) for text in found.values()), found.keys()

    done = device.pki_enroll(f"sn-0001:{device.token}")
    assert done.returncode == 0 and b"Issued certificate is trusted" in done.stderr, done.stderr.decode()
    enrolled = device.folder / "strongswan.pem"
    enrolled.write_bytes(done.stdout)
    assert "OK" in openssl("verify", "-CAfile", device.server.ca, "-purpose", "sslclient", enrolled)
    # The same request again has the same certificate, for curl as well.
    assert device.pki_enroll(f"sn-0001:{device.token}").stdout == done.stdout
    device.enroll()
    assert serial(device.folder / "device.pem") == serial(enrolled)


def openssl_same(certificate: str, bundle: str) -> bool:
    """Whether the bundle has the certificate, however the two break their lines."""
    return "".join(certificate.split("-----")[2].split()) in "".join(bundle.split())


def test_strongswan_is_refused_as_anybody(device: EstDevice):
    wrong = "wrong-token-0123456789-0123456789-0123456789"
    for user in [f"sn-0001:{wrong}", f"sn-9999:{device.token}"]:
        done = device.pki_enroll(user)
        assert done.returncode != 0 and b"HTTP 4" in done.stderr, done.stderr.decode()


def test_a_device_renews_by_its_certificate(device: EstDevice):
    first = device.enroll()
    files = [device.folder / "device.pem", device.folder / "device.key"]
    shown = ["--cert", files[0], "--key", files[1]]
    # The same key, early: the same certificate.
    assert device.enroll("simplereenroll", *shown) == first
    device.make_request("next", "/CN=sn-0001")
    second = device.enroll("simplereenroll", *shown, name="next")
    assert second != first
    assert "OK" in openssl("verify", "-CAfile", device.server.ca, "-purpose", "sslclient", device.folder / "next.pem")
    # With the new one nothing changes any more; seen once, it ends the one before.
    shown = ["--cert", device.folder / "next.pem", "--key", device.folder / "next.key"]
    assert device.enroll("simplereenroll", *shown, name="next") == second
    # The name of another device is not to be had with it.
    device.make_request("other", "/CN=sn-0002")
    assert device.post("simplereenroll", *shown, name="other").returncode == 22


def test_strongswan_renews_by_its_certificate(device: EstDevice):
    device.enroll()
    device.make_request("next", "/CN=sn-0001")
    key = device.folder / "strongswan.key"
    openssl("ec", "-in", device.folder / "device.key", "-outform", "DER", "-out", key)
    shown = ["--cert", device.folder / "device.pem", "--key", key]
    request = ["--in", device.folder / "next.csr", "--outform", "pem"]
    done = device.pki("--est", *request, *shown, "--interval", "1", "--maxpolltime", "15")
    assert done.returncode == 0, done.stderr.decode()
    renewed = device.folder / "renewed.pem"
    renewed.write_bytes(done.stdout)
    pub = openssl("pkey", "-in", device.folder / "next.key", "-pubout")
    assert openssl("x509", "-in", renewed, "-noout", "-pubkey") == pub


def test_a_password_in_a_request_is_not_looked_at(device: EstDevice):
    configuration = device.folder / "request.conf"
    configuration.write_text(
        f"[req]\ndistinguished_name=d\nattributes=a\nprompt=no\n[d]\nCN={device.id}\n"
        "[a]\nchallengePassword=Zm9vYmFyYmF6cXV4\n"
    )
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", configuration]
    files = ["-keyout", device.folder / "challenge.key", "-out", device.folder / "challenge.csr"]
    openssl("req", "-new", *curve, "-outform", "DER", *files)
    assert device.enroll(name="challenge")


def test_libest_reads_what_it_gets(device: EstDevice):
    said = ["-A", "libest client 1.0", "-i", "--http1.1"]
    got = device.curl("cacerts", *said).stdout.replace(b"\r\n", b"\n")
    head, _, body = got.partition(b"\n\n")
    # It compares these byte by byte.
    assert b"\nContent-Type: application/pkcs7-mime\n" in head and b"\nContent-Length: " in head, head
    # As it decodes: OpenSSL without -A reads lines alone.
    decoded = subprocess.run(["openssl", "base64", "-d"], input=body, capture_output=True)
    assert decoded.stdout[:1] == b"\x30" and len(decoded.stdout) > 500
    command = ["curl", "-sS", "-i", "--http1.1", "--cacert", device.server.ca, "--data-binary", "AAAA"]
    asked = subprocess.run([*command, f"{device.server.url}/{EST}/simpleenroll"], capture_output=True, text=True).stdout
    assert asked.startswith("HTTP/1.1 401 ") and '\nWWW-Authenticate: Basic realm="cvm"' in asked, asked
    assert asked.endswith("\n\n") or asked.endswith("\r\n\r\n"), "the body is empty"
