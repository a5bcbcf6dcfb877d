"""How much may be asked of the server, from where, and by whom."""

from contextlib import contextmanager

from server import Server, start


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


def test_one_device_does_not_ask_all_the_time(tmp_path):
    with serving(tmp_path, "--rate-per-device", "2/h") as server:
        server.vend("sn-0001", server.register("sn-0001"))
        asked = [server.ask("POST", "/v1/certificates", {"deviceId": "sn-0001"}, token="") for _ in range(2)]
        assert asked[0].status == 403 and is_told_to_wait(asked[1])
        server.vend("sn-0002", server.register("sn-0002"))
        assert len(server.ask("GET", "/audit?device=sn-0001").json) == 3, "what is not asked is not written down"


def test_a_wrong_operators_token_costs_more_than_a_request(tmp_path):
    def wrong(server: Server) -> list[int]:
        return [server.ask("GET", "/devices", token=f"cvm_{number:016x}_x").status for number in range(4)]

    with serving(tmp_path, "--rate-per-source", "63/h") as server:
        assert wrong(server) == [401, 401, 401, 429]
        assert is_told_to_wait(server.ask("GET", "/devices"))
