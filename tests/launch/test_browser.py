"""A report in a browser: nothing is wrong, and pointer and keyboard find their way."""

import shutil
from pathlib import Path

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs Playwright: pip install -e '.[browser]'"
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, NAMES)), None)
        path = found or playwright.chromium.executable_path
        if not Path(path).is_file():
            pytest.skip("needs Chromium, or `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def show(browser, two_runs, tmp_path):
    """``(width, color_scheme) -> page`` of the report; nothing may go wrong in it."""
    (tmp_path / "report.html").write_text(two_runs)
    said, contexts = [], []

    def open_page(width=1280, color_scheme="light"):
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, color_scheme=color_scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url))
        page.goto(f"file://{tmp_path}/report.html")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_charts_are_drawn_and_nothing_is_wider_than_the_window(
    show, width, color_scheme
):
    page = show(width, color_scheme)
    assert page.locator("svg.chart").count() == 10  # 7 curves, 2 of ops, the scatter
    assert page.locator("circle.point").count() == 6
    assert page.locator("path.line").count() == 14
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (color_scheme == "light")
    texts = page.locator("svg.chart").first.locator("text").all_text_contents()
    assert len(set(texts)) == len(texts)  # no two ticks look the same


def test_the_pointer_and_the_keyboard_show_the_cell(show):
    page = show()
    tip = page.locator("#tip")
    assert tip.is_hidden()
    page.locator("#scored circle.point").last.hover()
    assert "parameters" in tip.inner_text()
    assert tip.locator("svg, pre").count() == 1  # the cell drawn, or as text
    page.mouse.move(0, 0)
    page.wait_for_selector("#tip", state="hidden")
    chart = page.locator("#scored svg.chart")
    chart.focus()
    seen = []
    for key in ("Home", "ArrowRight"):
        page.keyboard.press(key)
        seen.append(tip.inner_text())
    assert seen[0] != seen[1] and all("reward" in text for text in seen)
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_the_scatter_takes_another_axis(show):
    page = show()
    options = page.locator("#axis option").all_inner_texts()
    assert options == ["trial", "parameters", "multiply-adds", "cost"]
    before = page.locator("#scored circle.point").count()
    page.select_option("#axis", label="cost")
    texts = page.locator("#scored svg.chart text").all_text_contents()
    assert "cost" in texts and "parameters" not in texts
    assert page.locator("#scored circle.point").count() > before  # of all trials


def test_a_title_sorts_by_pointer_and_by_keyboard(show):
    page = show()
    column = page.locator("#best tbody td:nth-child(2)")
    title = page.locator("#best th", has_text="reward")

    def rewards():
        return [float(text) for text in column.all_inner_texts()]

    title.locator("button").click()
    assert title.get_attribute("aria-sort") == "descending"
    assert rewards() == sorted(rewards(), reverse=True)
    page.keyboard.press("Enter")  # it has the focus
    assert title.get_attribute("aria-sort") == "ascending"
    assert rewards() == sorted(rewards())


def test_print_is_black_on_white_and_opens_what_is_folded(show):
    page = show(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    back, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.body).color]"
    )
    assert (back, ink) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#best details:not([open])").count() == 0
    assert page.pdf().startswith(b"%PDF")
