"""Files that only their owner can read, written whole or not at all."""

import os
import tempfile
from pathlib import Path


def make_private_directory(directory: Path) -> None:
    """Make the directory, if it is missing, and close it to all but its owner."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)


def write_private(path: Path, content: bytes) -> None:
    """Replace the file with one of mode 0600. A reader sees the old content or the new, whole."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink()
        raise
