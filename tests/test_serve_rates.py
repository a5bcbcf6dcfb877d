"""How much may be asked of the server, from where, and by whom."""

from contextlib import contextmanager
from pathlib import Path

from server import Server, openssl, start
from stack import until


@contextmanager
def serving(tmp_path, *options: str):
    server = start(tmp_path / "data", tmp_path, *options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def is_told_to_wait(answer) -> bool:
    if answer.status != 429:
        return False
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["code"] == "rate-limited" and int(answer.headers["retry-after"]) >= 1
    return True


def test_threat_02_a_sweep_from_one_source_is_told_to_wait(tmp_path):
    with serving(tmp_path, "--rate-per-source", "5/h") as server:
        body = [server.ask("POST", "/v1/certificates", {"deviceId": f"sn-{number}"}, token="") for number in range(7)]
        assert [answer.status for answer in body[:5]] == [403] * 5
        assert all(is_told_to_wait(answer) for answer in body[5:])
        # A header that anybody can write makes nobody another.
        assert is_told_to_wait(server.ask("GET", "/ca.pem", token="", x_forwarded_for="192.0.2.1"))
        assert server.ask("GET", "/livez", token="").status == 200
        assert server.ask("GET", "/readyz", token="").status == 200


def test_threat_27_a_trusted_proxy_says_who_asks(tmp_path):
    with serving(tmp_path, "--rate-per-source", "2/h", "--trusted-proxy", "127.0.0.1") as server:

        def ask(way: str):
            return server.ask("GET", "/ca.pem", token="", x_forwarded_for=way)

        assert [ask("192.0.2.1").status for _ in range(2)] == [200, 200]
        assert is_told_to_wait(ask("192.0.2.1"))
        assert is_told_to_wait(ask("203.0.113.5, 192.0.2.1")), "what stands to the left anybody can have written"
        assert ask("192.0.2.2").status == 200
        assert [ask(f"2001:db8::{number}").status for number in range(1, 4)] == [200, 200, 429], "a site is one source"


def signing_request(folder: Path) -> str:
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/"]
    return openssl("req", "-new", *curve, "-keyout", folder / "asked.key")


def test_one_device_does_not_ask_all_the_time(tmp_path):
    with serving(tmp_path, "--rate-per-device", "2/h") as server:
        token, csr = server.register("sn-0001").read_text(), signing_request(tmp_path)
        ask = lambda: server.ask("POST", "/v1/certificates", {"deviceId": "sn-0001", "csr": csr}, token=token)
        asked = [ask() for _ in range(3)]
        assert [answer.status for answer in asked[:2]] == [201, 200] and is_told_to_wait(asked[2])
        server.vend("sn-0002", server.register("sn-0002"))


def test_threat_03_a_guesser_keeps_no_device_out(tmp_path):
    with serving(tmp_path, "--rate-per-device", "5/h") as server:
        token, csr = server.register("sn-0001").read_text(), signing_request(tmp_path)
        device = lambda: server.ask("GET", "/devices/sn-0001")
        registered = device().headers["etag"]

        def ask(token: str):
            return server.ask("POST", "/v1/certificates", {"deviceId": "sn-0001", "csr": csr}, token=token)

        guesses = [ask(f"a-guess-0123456789-0123456789-{number}") for number in range(40)]
        assert [answer.status for answer in guesses[:5]] == [403] * 5
        assert all(is_told_to_wait(answer) for answer in guesses[5:]), "the guesser has to wait"
        until(lambda: device().json["cvm"]["wrongProofs"]["count"] == 40, "a count of the guesses")
        assert device().headers["etag"] == registered
        entries = server.ask("GET", "/audit?device=sn-0001").json
        assert [(entry["action"], entry["count"]) for entry in entries] == [("refused", 1), ("created", 1)]
        held = server.ask("PUT", "/devices/sn-0001", {"statusReason": "x"}, if_match=registered)
        assert held.status == 200, "an operator's change does not fail because somebody guesses"

        first = ask(token)
        assert first.status == 201, "and from the guesser's own address"
        again = [ask("a-guess-0123456789-0123456789-x"), ask(token)]
        assert is_told_to_wait(again[0])
        assert (again[1].status, again[1].json["certificatePem"]) == (200, first.json["certificatePem"])


def test_a_wrong_operators_token_costs_more_than_a_request(tmp_path):
    def wrong(server: Server) -> list[int]:
        return [server.ask("GET", "/devices", token=f"cvm_{number:016x}_x").status for number in range(4)]

    with serving(tmp_path, "--rate-per-source", "63/h") as server:
        assert wrong(server) == [401, 401, 401, 429]
        assert is_told_to_wait(server.ask("GET", "/ca.pem", token=""))
        assert server.ask("GET", "/devices").status == 200, "whoever is an operator is not counted with its address"


def test_an_operator_has_a_rate_of_its_own(tmp_path):
    with serving(tmp_path, "--rate-per-source", "9/h", "--rate-per-operator", "6/h") as server:
        made = server.ask("POST", "/tokens", {"name": "anna", "role": "viewer"}).json
        assert [server.ask("GET", "/devices").status for _ in range(6)] == [200] * 5 + [429]
        assert is_told_to_wait(server.ask("GET", "/devices"))
        assert server.ask("GET", "/devices", token=made["token"]).status == 200, "another token is another operator"
        # Devices behind the same address are not kept waiting by any of it.
        assert [server.ask("GET", "/ca.pem", token="").status for _ in range(10)] == [200] * 9 + [429]
