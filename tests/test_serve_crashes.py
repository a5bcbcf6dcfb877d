"""`cvm serve` when it is killed at any moment: nothing was handed out that is not recorded, and every retry completes."""

import http.client
import json
import random
import socket
import sqlite3
import ssl
import subprocess
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server import openssl
from stack import CVM

TOKEN = "a-token-that-all-of-these-devices-share-0123456789"
KILLS = 200
CALLERS = 4
BOUNDS = ["--rate-per-source", "1000000/s", "--rate-per-device", "1000000/s"]


class Storm:
    """A server that is started again whenever it was killed, and devices that ask until they are answered."""

    def __init__(self, folder: Path):
        self.folder, self.data, self.log = folder, folder / "data", folder / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.devices = 0
        self.handed_out: dict[str, str] = {}
        self.broken: list[str] = []
        self.operator = ""

    def start(self) -> subprocess.Popen:
        command = [CVM, "serve", "--data", self.data, "--listen", f"127.0.0.1:{self.port}", *BOUNDS, "--output", "json"]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def ask(self, method: str, path: str, body: object, token: str) -> tuple[int, dict] | None:
        """What is answered; `None` where nobody answers, or not to the end."""
        try:
            context = ssl.create_default_context(cafile=str(self.data / "ca" / "ca.pem"))
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
            headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            connection.request(method, path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def until_answered(self, method: str, path: str, body: object, token: str, expected: set[int]) -> dict:
        while True:
            answer = self.ask(method, path, body, token)
            if answer and answer[0] in expected:
                return answer[1]
            if answer and answer[0] not in {408, 500, 503}:
                raise AssertionError(answer)

    def devices_ask(self) -> None:
        try:
            while not self.over.is_set():
                with self.lock:
                    device = f"sn-{self.devices:05}"
                    self.devices += 1
                self.one_device_asks(device)
        except Exception as error:
            self.broken.append(repr(error))

    def one_device_asks(self, device: str) -> None:
        proof = {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": TOKEN}}}
        # An answer that was lost makes the second try find it there.
        self.until_answered("PUT", f"/devices/{device}", proof, self.operator, {200, 409})
        request = {"deviceId": device, "csr": signing_request()}
        answer = self.until_answered("POST", "/v1/certificates", request, TOKEN, {200, 201})
        self.handed_out[device] = answer["certificatePem"]
        again = self.until_answered("POST", "/v1/certificates", request, TOKEN, {200})
        assert again["certificatePem"] == answer["certificatePem"], device


def signing_request() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def test_threat_33_a_server_that_is_killed_200_times_loses_and_doubles_nothing(tmp_path):
    storm, moments = Storm(tmp_path), random.Random(33)
    # The first starts are cut off, too, while the CA is made.
    for moment in range(12):
        server = storm.start()
        storm.over.wait(moment * 0.008)
        server.kill()
        server.wait()
    command = [CVM, "token", "create", "--data", storm.data, "--name", "storm", "--role", "operator", "--output", "json"]
    storm.operator = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["token"]

    callers = [threading.Thread(target=storm.devices_ask) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    for _ in range(KILLS):
        server = storm.start()
        storm.over.wait(moments.uniform(0, 0.3))
        server.kill()
        server.wait()
    server = storm.start()
    storm.over.set()
    for caller in callers:
        caller.join()
    assert storm.broken == [], storm.log.read_text()[-2000:]
    # More were answered than there were moments between two ends.
    assert len(storm.handed_out) > KILLS / 2, len(storm.handed_out)

    for device, pem in storm.handed_out.items():
        kept = storm.until_answered("GET", f"/devices/{device}", None, storm.operator, {200})
        certificate = x509.load_pem_x509_certificate(pem.encode())
        assert kept["cvm"]["certificate"]["certificateId"] == certificate.fingerprint(hashes.SHA256()).hex(), device
        provisioned = storm.until_answered("GET", f"/audit?device={device}", None, storm.operator, {200})
        actions = [entry["action"] for entry in provisioned]
        assert actions == ["provisioned", "created"], f"{device}: {actions}"
    server.terminate()
    assert server.wait(timeout=20) == 0
    verified = subprocess.run([CVM, "audit", "verify", "--data", storm.data], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stderr
    with sqlite3.connect(storm.data / "registry" / "registry.sqlite") as registry:
        entered = "SELECT devices.id, certificates.id FROM devices JOIN certificates ON sequence = last_certificate"
        whole = f"{entered} WHERE sequence = devices.credential AND is_linked AND device = thing AND earlier IS NULL"
        fingerprint = lambda pem: x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()
        assert dict(registry.execute(whole)) == {name: fingerprint(pem) for name, pem in storm.handed_out.items()}
        assert registry.execute("SELECT COUNT(*) FROM certificates").fetchone() == (len(storm.handed_out),)
    chain = storm.data / "ca" / "ca.pem"
    for number, pem in enumerate(list(storm.handed_out.values())[:20]):
        file = tmp_path / f"{number}.pem"
        file.write_text(pem)
        openssl("verify", "-crl_check_all", "-CAfile", chain, "-CRLfile", storm.data / "ca" / "crl.pem", file)
