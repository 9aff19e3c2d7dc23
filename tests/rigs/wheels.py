"""Tiny wheels in a folder that pip takes for a package index, and locks with their hashes: no network needed."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path


def wheel(folder: Path, name: str, files: dict[str, str | bytes], *, platform: str = "any") -> Path:
    """Write version 1.0 of the distribution `name`, holding `files`, as a wheel into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = name.replace("-", "_")
    path = folder / f"{stem}-1.0-py3-none-{platform}.whl"
    info = f"{stem}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    tag = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-{platform}\n"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**files, f"{info}/METADATA": metadata, f"{info}/WHEEL": tag}.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/RECORD", "".join(f"{member},,\n" for member in archive.namelist()))
    return path


def lock_line(wheel: Path) -> str:
    """The entry of a hash-locked requirements file that accepts `wheel`, and a second file that nobody has."""
    name = wheel.name.split("-")[0].replace("_", "-")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{name}==1.0 \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{digest}\n    # via a test\n"


def index_environment(folder: Path) -> dict[str, str]:
    """The variables that make `folder` pip's only package index."""
    return {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}


def no_index_environment(url: str = "http://127.0.0.1:9/simple") -> dict[str, str]:
    """The variables that leave pip with an index that does not answer."""
    return {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": url}
