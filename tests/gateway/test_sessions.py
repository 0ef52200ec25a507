"""Sessions of the dashboard: how they are opened, what they open, and how they end."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest

from gateway.config import Settings
from shoptrail.keys.v1 import api_key_pb2, keys_pb2
from tests.gateway.conftest import ALL_SCOPES, SECRET_KEY, STORE, WRITE_KEY, Clock, Mesh, Running

OURS = {"X-Shoptrail-Session": "1"}
STORES = "/v1/stores"


class KeysWithSessions:
    """Keys that knows keys by text and by uid, and how often their sessions were ended."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.epoch = 0
        mesh.keys.answers["VerifyKey"] = self.verify
        mesh.keys.answers["EndSessions"] = self.end

    async def verify(self, request: keys_pb2.VerifyKeyRequest) -> keys_pb2.VerifyKeyResponse:
        known = {key.uid: key for key in self._mesh.keys_by_text.values()}
        key = known.get(request.key_uid) or self._mesh.keys_by_text.get(request.text)
        answer = keys_pb2.VerifyKeyResponse(key=key, session_epoch=self.epoch)
        answer.remember.FromTimedelta(timedelta(seconds=10))
        return answer

    async def end(self, request: keys_pb2.EndSessionsRequest) -> keys_pb2.EndSessionsResponse:
        assert request.key_uid == "key_2"
        self.epoch += 1
        return keys_pb2.EndSessionsResponse()


@pytest.fixture(autouse=True)
def keys(mesh: Mesh) -> KeysWithSessions:
    return KeysWithSessions(mesh)


async def sign_in(gateway: Running, key: str = SECRET_KEY, **headers: str) -> httpx.Response:
    return await gateway.http.post("/v1/session", json={"key": key}, headers=OURS | headers)


async def test_a_secret_key_is_exchanged_for_a_cookie_that_stands_for_it(
    gateway: Running, mesh: Mesh
) -> None:
    origin = f"http://127.0.0.1:{gateway.port}"
    opened = await sign_in(gateway, Origin=origin, **{"Sec-Fetch-Site": "same-origin"})

    assert opened.status_code == 200
    told = opened.json()
    assert (told["key_uid"], told["store_uid"]) == ("key_2", STORE)
    assert told["scopes"] == list(ALL_SCOPES)
    cookie = opened.headers["set-cookie"]
    assert SECRET_KEY not in cookie
    assert cookie.startswith("shoptrail_session=")
    assert cookie.endswith("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict")

    assert (await gateway.http.get("/v1/session")).json() == told
    assert (await gateway.http.get(STORES)).status_code == 200
    (_, _, call) = next(each for each in mesh.keys.calls if each[0] == "ListStores")
    assert call.key is not None
    assert (call.key.uid, call.key.store_uid) == ("key_2", STORE)


async def test_anyone_s_word_that_it_was_https_does_not_count(gateway: Running) -> None:
    opened = await sign_in(gateway, **{"X-Forwarded-Proto": "https"})

    assert opened.headers["set-cookie"].startswith("shoptrail_session=")


@pytest.mark.parametrize("settings", [{"trusted_proxies": "127.0.0.1/32"}], indirect=True)
async def test_behind_a_proxy_that_takes_https_off_the_cookie_is_for_https_only(
    gateway: Running, settings: Settings
) -> None:
    secure = {"X-Forwarded-Proto": "https", "Origin": f"https://127.0.0.1:{gateway.port}"}
    opened = await sign_in(gateway, **secure)

    cookie = opened.headers["set-cookie"]
    assert cookie.startswith("__Host-shoptrail_session=")
    assert cookie.endswith("; HttpOnly; SameSite=Strict; Secure")
    sent = {"Cookie": cookie.partition(";")[0]}
    assert (await gateway.http.get(STORES, headers=secure | sent)).status_code == 200
    # A page over HTTP can have planted nothing that counts.
    planted = {"Cookie": cookie.partition(";")[0].removeprefix("__Host-")}
    assert (await gateway.http.get(STORES, headers=secure | planted)).status_code == 401


@pytest.mark.parametrize("key", ["sk_test_unknown", "", "x" * 300, WRITE_KEY])
async def test_other_keys_open_nothing(gateway: Running, key: str) -> None:
    refused = await sign_in(gateway, key)

    assert refused.status_code == (401 if key == "sk_test_unknown" else 400)
    assert "set-cookie" not in refused.headers


@pytest.mark.parametrize("body", [b"", b"[]", b'{"key": 1}', b"{", b'"sk"', b"\xff"])
async def test_what_is_no_sign_in_is_refused(gateway: Running, body: bytes) -> None:
    refused = await gateway.http.post("/v1/session", content=body, headers=OURS)

    assert refused.status_code == 400
    assert refused.json()["error"]["details"][0]["reason"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        OURS | {"Origin": "https://evil.example"},
        OURS | {"Origin": "null"},
        OURS | {"Sec-Fetch-Site": "cross-site"},
        OURS | {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_other_sites_pages_change_nothing(
    gateway: Running, mesh: Mesh, headers: dict[str, str]
) -> None:
    assert (await sign_in(gateway)).status_code == 200
    mesh.keys.calls.clear()

    for path, body in (
        ("/v1/session", {"key": SECRET_KEY}),
        ("/v1/session:end", {}),
        ("/v1/session:end-all", {}),
        (STORES, {"display_name": "Theirs"}),
    ):
        refused = await gateway.http.post(path, json=body, headers=headers)
        assert refused.status_code == 403, path
        assert refused.json()["error"]["details"][0]["reason"] == "ORIGIN_NOT_ALLOWED"
        assert "set-cookie" not in refused.headers
    assert mesh.keys.requests("CreateStore") == mesh.keys.requests("EndSessions") == []


async def test_other_sites_pages_read_nothing(gateway: Running) -> None:
    assert (await sign_in(gateway)).status_code == 200

    foreign = {"Origin": "https://evil.example"}
    assert (await gateway.http.get(STORES, headers=foreign)).status_code == 403
    assert (await gateway.http.get("/v1/session", headers=foreign)).status_code == 403
    # And the browser would keep from them what had been answered.
    allowed = await gateway.http.get("/openapi.json", headers=foreign)
    assert "access-control-allow-credentials" not in allowed.headers
    asked = await gateway.http.options(STORES, headers=foreign)
    assert "x-shoptrail-session" not in asked.headers["access-control-allow-headers"].lower()


async def test_a_cookie_sends_no_events(gateway: Running) -> None:
    assert (await sign_in(gateway)).status_code == 200

    refused = await gateway.http.post("/v1/track", json={"event": "Viewed"}, headers=OURS)

    assert refused.status_code == 401


async def test_an_altered_cookie_opens_nothing(gateway: Running) -> None:
    assert (await sign_in(gateway)).status_code == 200
    good = gateway.http.cookies["shoptrail_session"]
    gateway.http.cookies.clear()

    middle = len(good) // 2
    other = "A" if good[middle] != "A" else "B"
    for bad in (f"{good[:middle]}{other}{good[middle + 1 :]}", good[:-4], "é", "", good[:8]):
        headers = {"Cookie": f"shoptrail_session={bad}".encode()}
        refused = await gateway.http.get(STORES, headers=headers)  # type: ignore[arg-type]
        assert refused.status_code == 401, bad
    allowed = await gateway.http.get(STORES, headers={"Cookie": f"a=b; shoptrail_session={good}"})
    assert allowed.status_code == 200


async def test_a_session_ends_when_its_time_is_over(gateway: Running, clock: Clock) -> None:
    assert (await sign_in(gateway)).status_code == 200
    clock.move_on(12 * 3600 - 60)
    assert (await gateway.http.get(STORES)).status_code == 200

    clock.move_on(61)

    assert (await gateway.http.get(STORES)).status_code == 401
    assert (await gateway.http.get("/v1/session")).status_code == 204


async def test_a_session_ends_when_its_key_does(gateway: Running, mesh: Mesh, clock: Clock) -> None:
    assert (await sign_in(gateway)).status_code == 200
    assert (await gateway.http.get(STORES)).status_code == 200

    del mesh.keys_by_text[SECRET_KEY]
    clock.move_on(11)

    assert (await gateway.http.get(STORES)).status_code == 401


async def test_a_session_is_no_more_than_its_key_is_now(
    gateway: Running, mesh: Mesh, clock: Clock
) -> None:
    assert (await sign_in(gateway)).status_code == 200
    mesh.keys_by_text[SECRET_KEY] = api_key_pb2.ApiKey(
        uid="key_2", store_uid=STORE, scopes=["stores:read"]
    )
    clock.move_on(11)

    assert (await gateway.http.get("/v1/session")).json()["scopes"] == ["stores:read"]


async def test_signing_out_forgets_the_cookie(gateway: Running, keys: KeysWithSessions) -> None:
    assert (await sign_in(gateway)).status_code == 200

    ended = await gateway.http.post("/v1/session:end", headers=OURS)

    assert ended.headers["set-cookie"].startswith("shoptrail_session=; Path=/; Max-Age=0;")
    assert (await gateway.http.get("/v1/session")).status_code == 204
    assert keys.epoch == 0


async def test_signing_out_everywhere_ends_sessions_in_other_browsers(
    gateway: Running, clock: Clock
) -> None:
    assert (await sign_in(gateway)).status_code == 200
    elsewhere = {"Cookie": f"shoptrail_session={gateway.http.cookies['shoptrail_session']}"}

    assert (await gateway.http.post("/v1/session:end-all", headers=OURS)).status_code == 200
    clock.move_on(11)  # No news from Keys here: what is remembered of a key grows old.

    assert (await gateway.http.get(STORES, headers=elsewhere)).status_code == 401
    assert (await sign_in(gateway)).status_code == 200
    assert (await gateway.http.get(STORES)).status_code == 200
