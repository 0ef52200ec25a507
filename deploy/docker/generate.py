"""Generates the contracts' code while the image is built, as the Makefile does elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

os.environ["PYTHONPATH"] = "tools"
PROTOS = sorted(str(path) for path in Path("protos").rglob("*.proto"))
OUTPUT = Path("shoptrail")
OUTPUT.mkdir()
subprocess.run(  # noqa: S603 - nothing of it comes from outside
    [
        sys.executable,
        *("-m", "grpc_tools.protoc", "-I", "protos", "--python_out=.", "--grpc_python_out=."),
        f"--descriptor_set_out={OUTPUT / 'descriptors.binpb'}",
        *("--include_imports", "--include_source_info", *PROTOS),
    ],
    check=True,
)
for directory in (OUTPUT, *(path for path in OUTPUT.rglob("*") if path.is_dir())):
    (directory / "__init__.py").touch()
