"""The view of a long text, alone: what stays in sight while the text grows."""

from __future__ import annotations

from textual.app import App, ComposeResult

from console.widgets.textview import TextView

BELOW = ["", "REQUEST", "from here", "from there"]


class Bench(App[None]):
    """A view that follows what grows."""

    def __init__(self) -> None:
        super().__init__()
        self.view = TextView(follow=True)

    def compose(self) -> ComposeResult:
        yield self.view

    def on_mount(self) -> None:
        self.view.focus()

    def grow(self, lines: int) -> list[str]:
        """An answer of so many lines, with something below it; what is in sight."""
        answer = [f"line {number}" for number in range(lines)]
        self.view.show([*answer, *BELOW], follow_to=lines)
        return self.seen()

    def seen(self) -> list[str]:
        return [self.view.render_line(y).text.rstrip() for y in range(self.view.size.height)]


async def test_what_grows_stays_in_sight_above_what_stands_below_it() -> None:
    """The rest is there as soon as there is room; scrolled up the view stays; `follow_on` goes on."""
    app = Bench()
    async with app.run_test(size=(40, 10)) as pilot:
        assert app.grow(3) == ["line 0", "line 1", "line 2", *BELOW, "", "", ""]
        assert app.grow(30) == [f"line {number}" for number in range(20, 30)]
        await pilot.press("G")
        assert app.seen()[-4:] == BELOW
        assert app.grow(40)[0] == "line 24"  # at the very end it does not go on by itself
        app.view.follow_on()
        assert app.grow(50)[-1] == "line 49"
        await pilot.press("k")
        assert app.grow(60)[-1] == "line 48"
