"""Which release this is."""

from __future__ import annotations

import tomllib
from pathlib import Path


def version() -> str:
    """The installed distribution's version; the checkout's where it is not installed."""
    from importlib import metadata  # 20 ms, which no other command shall pay

    try:
        return metadata.version("gatelodge")
    except metadata.PackageNotFoundError:
        file = Path(__file__).resolve().parent.parent / "pyproject.toml"
        return str(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"])
