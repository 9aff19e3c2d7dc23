"""What every screen looks like, word for word: recorded frames, and the pictures that README.md shows.

`python -m tests.golden` draws all of them anew from `tests/rigs/showcase.py`; look at the difference before committing
it. Frames are plain text (`NAME-80x24.txt`); pictures are SVG made by the program itself, without fonts from elsewhere.
"""

from __future__ import annotations

import html
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from console.app import Lodge
from console.cells import cell_len
from console.screens import TABS
from console.screens.framed import Framed
from tests.rigs.console import frame_of
from tests.rigs.showcase import showcase
from tests.rigs.until import until

ROOT = Path(__file__).resolve().parents[2]
FRAMES = Path(__file__).resolve().parent
PICTURES = ROOT / "docs" / "screens"
SIZES = ((80, 24), (200, 60))
OF_A_PICTURE = (118, 30)


@dataclass(frozen=True)
class Scene:
    """A screen: the keys that lead to it, and words that stand on it once it is whole."""

    name: str
    keys: Sequence[str]
    words: str


PAGES = {
    "live": "q#3",
    "users": "7K-2MQX",
    "keys": "laptop",
    "models": "qwen3:4b",
    "usage": "yuki.小林",
    "audit": "03-14 14:02:11",
    "limits": "10/10",
    "jobs": "retention",
}
SCENES = (
    *(Scene(tab.name, (tab.digit,), PAGES[tab.name]) for tab in TABS),
    Scene("cancel", ("1", "j", "c"), "[y] yes"),
    Scene("exchange", ("1", "enter"), "宿題は金曜日まで"),
    Scene("audited", ("6", "enter"), "sealed by 48230"),
    Scene("help", ("2", "question_mark"), "Approve"),
    Scene("edit-limits", ("7", "j", "e"), "Esc"),
)
OF_README = ("live", "users", "limits", "usage", "audit")
SHOWN = (*OF_README, "keys", "models", "jobs", "exchange", "cancel")


async def draw(folder: Path, size: tuple[int, int], *, pictures: bool = False) -> dict[str, str]:
    """Every scene at this size: its frame by its name; its SVG, with `pictures`."""
    drawn: dict[str, str] = {}
    async with showcase(folder, size=size) as (app, pilot, _):
        for scene in SCENES:
            if pictures and scene.name not in SHOWN:
                continue
            for key in scene.keys:
                if not key.isdigit():
                    await pilot.press(key)
                    continue
                page = next(tab.name for tab in TABS if tab.digit == key)
                await app.go_to(page)
                await until(lambda words=PAGES[page]: words in frame_of(app) or app.main.tick(), timeout=30, what=page)
            await until(partial(_holds, app, scene.words), timeout=30, what=f"{scene.name} is whole")
            before = ""
            while (frame := frame_of(app)) != before:  # as it stays
                before = frame
                await pilot.pause(0.01)
                for screen in app.screen_stack:
                    if isinstance(screen, Framed):
                        screen.tick()
                await pilot.pause()
            drawn[scene.name] = picture(app.export_screenshot(title="gatelodge")) if pictures else frame + "\n"
            while len(app.screen_stack) > 1 or app.prompt.is_asking:
                await pilot.press("escape")
            if "j" in scene.keys:
                await pilot.press("g")
    return drawn


def _holds(app: Lodge, words: str) -> bool:
    """Whether they are in sight, or in a text that goes on below."""
    view = getattr(app.screen, "view", None)
    return words in frame_of(app) or any(words in text for text, _ in getattr(view, "paragraphs", ()))


def picture(svg: str) -> str:
    """Without what Rich would have a browser fetch from elsewhere; each wide character at its own place.

    Rich spreads a text over as many cells as it has characters, which moves all that follows a wide one.
    """
    svg = re.sub(r"@font-face\s*\{.*?\}\s*|<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r"font-family: [^;]*;", "font-family: 'DejaVu Sans Mono', Menlo, Consolas, monospace;", svg)
    svg = _TEXT.sub(_spread, svg)
    return "\n".join(line.rstrip() for line in svg.strip().splitlines()) + "\n"


CELL = 12.2  # width of a cell in Rich's pictures
_TEXT = re.compile(r'<text class="([^"]*-r\d+)" x="([\d.]+)" (y="[^"]*") textLength="[^"]*" ([^>]*)>(.*?)</text>')


def _spread(match: re.Match[str]) -> str:
    style, x, y, clip, content = match.groups()
    text = html.unescape(content)
    if cell_len(text) == len(text):
        return match.group()
    pieces: list[str] = []
    for run in re.findall(r"[\x20-\u10ff]+|.", text):
        cells = cell_len(run)
        words = html.escape(run).replace(" ", "&#160;").replace("\xa0", "&#160;")
        at, length = round(float(x), 1), round(cells * CELL, 1)
        pieces.append(f'<text class="{style}" x="{at}" {y} textLength="{length}" {clip}>{words}</text>')
        x = str(float(x) + cells * CELL)
    return "".join(pieces)


async def draw_all() -> dict[Path, str]:
    """Every file as it is to be."""
    files: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            for name, frame in (await draw(Path(folder), size)).items():
                files[frame_file(name, size)] = frame
        for name, svg in (await draw(Path(folder), OF_A_PICTURE, pictures=True)).items():
            files[picture_file(name)] = svg
    return files


def frame_file(name: str, size: tuple[int, int]) -> Path:
    """Where a frame is stored."""
    return FRAMES / f"{name}-{size[0]}x{size[1]}.txt"


def picture_file(name: str) -> Path:
    """Where a picture is stored: those of README.md in docs/."""
    return (PICTURES if name in OF_README else FRAMES) / f"{name}.svg"
