"""`python -m tests.golden`: record every frame and picture anew, and say which changed."""

from __future__ import annotations

import asyncio

from tests.golden import FRAMES, PICTURES, ROOT, draw_all


def main() -> None:
    """Write what differs, remove what is no longer drawn."""
    files = asyncio.run(draw_all())
    PICTURES.mkdir(exist_ok=True)
    for path, text in files.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"changed: {path.relative_to(ROOT)}")
    for path in (*FRAMES.glob("*.txt"), *FRAMES.glob("*.svg"), *PICTURES.glob("*.svg")):
        if path not in files:
            path.unlink()
            print(f"gone: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
