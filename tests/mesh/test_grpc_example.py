"""What docs/grpc.md shows works, with the package of the contracts and nothing else of ours."""

from __future__ import annotations

import asyncio
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, cast

from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from common.client import open_channel
from common.tls import CertificateFiles
from deploy.stubs import build_stubs
from tests.mesh.conftest import RunningMesh

ROOT = Path(__file__).parent.parent.parent


async def test_the_example_runs_with_the_package_of_the_contracts(
    mesh: RunningMesh, tmp_path: Path
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "grpc.md").read_text(), re.S)
    (tmp_path / "example.py").write_text(example)
    with zipfile.ZipFile(build_stubs(tmp_path / "dist")) as wheel:
        wheel.extractall(tmp_path)

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "example.py", str(mesh.directory)),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 0
    recorded, as_of, *_ = output.decode().splitlines()
    assert recorded == "VERDICT_ACCEPTED"
    assert as_of.startswith("Everything before 20")
    assert await confirmed_revenue(mesh) == [("EUR", "68.90")]


async def confirmed_revenue(mesh: RunningMesh) -> list[tuple[str, str]]:
    """What the demo store took, by those whom it trusts, as soon as it took anything."""
    announced = mesh.announcement
    route = f"/v1/stores/{announced['store_uid']}/reports/revenue"
    async with mesh.client(announced["secret_key"]) as http, asyncio.timeout(10):
        while True:
            answer = await http.get(route, params={"trust": "TRUST_CONFIRMED"})
            if revenues := answer.json()["currencies"]:
                return [(each["currency"], each["total"]["net"]) for each in revenues]
            await asyncio.sleep(0.05)


def test_the_same_contracts_make_the_same_package(tmp_path: Path) -> None:
    first, second = (build_stubs(tmp_path / name).read_bytes() for name in ("a", "b"))

    assert first == second


async def test_tools_find_the_contracts_by_reflection(mesh: RunningMesh) -> None:
    tls = mesh.directory / "tls"
    certificates = CertificateFiles(
        certificate=tls / "operator.pem", key=tls / "operator.key", authority=tls / "authority.pem"
    ).read()
    address = mesh.announcement["grpc"]["keys"]
    async with open_channel(address, "shoptrail.keys.v1.Keys", "keys", certificates) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast(Any, channel))
        call = stub.ServerReflectionInfo(timeout=5)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
        await call.done_writing()

    named = {service.name for service in answer.list_services_response.service}
    assert {"shoptrail.keys.v1.Keys", "shoptrail.maintenance.v1.Maintenance"} <= named
