"""Object-level checks over HTTP: the key of store A on everything that is store B's."""

from __future__ import annotations

import time
from statistics import quantiles

import pytest

from gateway.transcoding import http_methods
from services.keys.key_text import Kind, new_key_text
from shoptrail.keys.v1 import api_key_pb2, keys_pb2
from tests.security.conftest import Town

SECRET = api_key_pb2.KEY_KIND_SECRET
# What is checked stands before any database.
pytestmark = pytest.mark.parametrize("databases", ["sqlite"], indirect=True)

UNKNOWN = "sto_01h455vb4pex5vsknk084sn02q"


async def test_a_key_opens_no_other_store_by_any_route(town: Town) -> None:
    own, other = await town.new_store(), await town.new_store()
    secret = (await town.new_key(own, SECRET)).text
    key_of_other = (await town.new_key(other, SECRET)).key
    routes = [each for each in http_methods() if "store_uid" in each.variables]

    for method in routes:
        for store_uid in (other, UNKNOWN):
            path = method.template
            for variable in method.variables:
                value = key_of_other.uid if variable == "key_uid" else "x"
                value = store_uid if variable == "store_uid" else value
                path = path.replace(f"{{{variable}}}", value)
            answer = await town.gateways[0].request(
                method.verb, path, headers={"Authorization": f"Bearer {secret}"}
            )
            # Whether the store exists makes no difference.
            assert answer.status_code == 403, method.template
            reason = answer.json()["error"]["details"][0]["reason"]
            lacking = any(scope in answer.text for scope in ("stores:write", "privacy:write"))
            expected = "SCOPE_MISSING" if lacking else "WRONG_STORE"
            assert reason == expected, method.template
    assert len(routes) > 15


async def test_a_key_finds_no_key_of_another_store_under_its_own(town: Town) -> None:
    own, other = await town.new_store(), await town.new_store()
    secret = (await town.new_key(own, SECRET)).text
    key_of_other = (await town.new_key(other, SECRET)).key
    routes = [each for each in http_methods() if "key_uid" in each.variables]

    for method in routes:
        path = method.template.replace("{store_uid}", own).replace("{key_uid}", key_of_other.uid)
        answer = await town.gateways[0].request(
            method.verb, path, headers={"Authorization": f"Bearer {secret}"}
        )
        assert answer.status_code == 404, method.template
    assert len(routes) > 5
    aim = keys_pb2.GetKeyRequest(store_uid=other, key_uid=key_of_other.uid)
    assert (await town.operator.GetKey(aim, timeout=5)).key == key_of_other


async def test_a_publishable_key_reads_nothing(town: Town) -> None:
    store_uid = await town.new_store()
    text = (await town.new_key(store_uid)).text

    for method in http_methods():
        path = method.template.replace("{store_uid}", store_uid).replace("{service}", "ingest")
        path = path.replace("{", "").replace("}", "")
        answer = await town.gateways[0].request(
            method.verb, path, headers={"Authorization": f"Bearer {text}"}
        )
        assert answer.status_code == 403, method.template
        assert answer.json()["error"]["details"][0]["reason"] == "SCOPE_MISSING"


async def test_unknown_revoked_and_foreign_keys_are_refused_alike_and_as_fast(town: Town) -> None:
    own, deleted = await town.new_store(), await town.new_store()
    rounds = 20
    revoked = [await town.new_key(own, SECRET) for _ in range(rounds)]
    foreign = [(await town.new_key(deleted, SECRET)).text for _ in range(rounds)]
    for created in revoked:
        await town.operator.RevokeKey(
            keys_pb2.RevokeKeyRequest(store_uid=own, key_uid=created.key.uid), timeout=5
        )
    await town.operator.DeleteStore(keys_pb2.DeleteStoreRequest(store_uid=deleted), timeout=5)
    unknown = [new_key_text(Kind.SECRET, test=False) for _ in range(rounds)]

    seconds: dict[str, list[float]] = {"unknown": [], "revoked": [], "foreign": []}
    bodies = set()
    # By turns, so that whatever else the machine does slows all three.
    for texts in zip(unknown, [created.text for created in revoked], foreign, strict=True):
        for kind, text in zip(seconds, texts, strict=True):
            began = time.perf_counter()
            answer = await town.gateways[0].get(
                f"/v1/stores/{own}", headers={"Authorization": f"Bearer {text}"}
            )
            seconds[kind].append(time.perf_counter() - began)
            assert answer.status_code == 401
            bodies.add(answer.content)

    assert len(bodies) == 1
    typical = [quantiles(times, n=4)[0] for times in seconds.values()]
    assert max(typical) < 1.5 * min(typical)
