"""Builds the contracts as a package that other projects install: `dist/shoptrail_contracts-….whl`.

    python -m deploy.stubs

A wheel is a ZIP archive (https://packaging.python.org/specifications/binary-distribution-format),
so no build tool is needed; and the same contracts make the same bytes.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

_NEEDED = ("grpcio", "protobuf")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def build_stubs(directory: Path) -> Path:
    """Write the wheel into the directory; returns where it is. Needs `make protos` before."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = f"shoptrail_contracts-{project['version']}"
    files = {**dict(_contracts()), **dict(_metadata(name, project))}
    record = "".join(
        f"{path},{_digest(content)},{len(content)}\n" for path, content in files.items()
    )
    files[f"{name}.dist-info/RECORD"] = f"{record}{name}.dist-info/RECORD,,\n".encode()

    directory.mkdir(parents=True, exist_ok=True)
    wheel = directory / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path, _LONG_AGO), content)
    return wheel


def _contracts() -> Iterator[tuple[str, bytes]]:
    for path in sorted((ROOT / "shoptrail").rglob("*.py*")):
        if path.suffix in (".py", ".pyi"):
            yield str(path.relative_to(ROOT)), path.read_bytes()
    for path in sorted((ROOT / "protos").rglob("*.proto")):
        yield str(path.relative_to(ROOT / "protos")), path.read_bytes()
    yield "shoptrail/py.typed", b""


def _metadata(name: str, project: dict[str, object]) -> Iterator[tuple[str, bytes]]:
    dependencies = project["dependencies"]
    assert isinstance(dependencies, list)  # noqa: S101 - as the format has it
    needed = "".join(
        # The generated code runs with newer ones too.
        f"Requires-Dist: {dependency.replace('==', '>=')}\n"
        for dependency in dependencies
        if dependency.partition("==")[0] in _NEEDED
    )
    yield (
        f"{name}.dist-info/METADATA",
        (
            "Metadata-Version: 2.1\nName: shoptrail-contracts\n"
            f"Version: {project['version']}\nSummary: The gRPC contracts of Shoptrail.\n"
            f"License: {project['license']}\n"
            f"Requires-Python: {project['requires-python']}\n{needed}"
        ).encode(),
    )
    yield (
        f"{name}.dist-info/WHEEL",
        b"Wheel-Version: 1.0\nGenerator: shoptrail\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    )


def _digest(content: bytes) -> str:
    digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"


def main() -> None:
    """Build it into dist/."""
    sys.stdout.write(f"{build_stubs(ROOT / 'dist').relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
