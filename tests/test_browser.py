"""A study's page of made-up records in a real browser: Debian's Chromium, headless."""

import base64
import json
import re
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from cml_bench.report import write
from tests.helpers.plans import labelled
from tests.helpers.simulated import finish, study

BROWSER, DRIVER = (
    shutil.which("chromium") or shutil.which("google-chrome"),
    shutil.which("chromedriver"),
)
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="no chromium or no chromedriver here (apt-get install chromium chromium-driver)",
)

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1280,900",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a page with gains, losses and a failed run."""
    root = tmp_path_factory.mktemp("browser")
    resolved = labelled(study(seeds=5), lambda label: f"{label} <i>")
    store = finish(resolved, root, {"base": 50, "meta": 53, "co": 46})
    lost = store.runs / resolved.runs[0].folder
    shutil.rmtree(lost)
    lost.mkdir()
    (lost / "error.log").write_text("RuntimeError: <b>out of memory</b>\n")
    write.tables(resolved, root, [])
    return write.page(resolved, root).as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, address):
    """The page, freshly opened, with its charts drawn."""
    opened(browser, address)
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def opened(browser, address):
    browser.get(address)
    WebDriverWait(browser, 20).until(
        lambda b: b.execute_script("return document.documentElement.dataset.charts")
    )


def rows(page, table) -> list[list[str]]:
    """The texts of the visible rows."""
    lines = page.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr")
    return [
        [cell.text for cell in row.find_elements(By.XPATH, "./*")]
        for row in lines
        if row.is_displayed()
    ]


def head(page, table, name):
    cells = page.find_elements(By.CSS_SELECTOR, f"#{table} thead th")
    return next(th for th in cells if th.text.startswith(name))


def test_the_page_says_nothing_to_the_console_and_asks_nobody(browser, address):
    browser.get_log("performance")
    opened(browser, address)
    assert browser.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"
    ]
    assert address in asked, "requests are seen at all"
    own = ("data:", "chrome://")  # the browser itself: icons, a tab that it opened
    assert [url for url in asked if url != address and not url.startswith(own)] == []
    blocked = browser.execute_async_script(
        "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('sent'), error =>"
        " done(`${error}`));"
    )
    assert "Failed to fetch" in blocked
    assert "Content Security Policy" in browser.get_log("browser")[0]["message"], (
        "not even if it wanted to"
    )


def test_a_table_is_sorted_by_the_means_of_a_column(page):
    column = head(page, "table-table1", "1-shot")
    first = rows(page, "table-table1")
    means = [float(row[2].split()[0]) for row in first]
    assert means != sorted(means), "the test can fail"
    button = column.find_element(By.TAG_NAME, "button")
    button.click()
    assert column.get_attribute("aria-sort") == "ascending"
    assert [float(row[2].split()[0]) for row in rows(page, "table-table1")] == sorted(means)
    button.send_keys(Keys.ENTER)
    assert column.get_attribute("aria-sort") == "descending"
    assert [float(row[2].split()[0]) for row in rows(page, "table-table1")] == sorted(
        means, reverse=True
    )
    head(page, "table-table1", "method").find_element(By.TAG_NAME, "button").click()
    assert column.get_attribute("aria-sort") == "none", "one column at a time"
    button.click()
    button.click()
    button.click()
    assert rows(page, "table-table1") == first, "the study's order comes back"


def test_numbers_are_sorted_as_numbers_and_dashes_stand_last(page):
    column = head(page, "differences-table1", "p (Holm)")
    button = column.find_element(By.TAG_NAME, "button")
    for sign in (1, -1):
        button.click()
        texts = [row[5] for row in rows(page, "differences-table1")]
        assert texts[-2:] == ["–", "–"], "those of the shot that lacks a run"
        values = [float(text.removeprefix("<")) for text in texts[:-2]]
        assert len(values) == 2
        assert values == sorted(values, key=lambda value, sign=sign: sign * value)


def test_a_filter_leaves_rows_that_have_all_its_words(page):
    box = page.find_element(By.CSS_SELECTOR, "input[aria-controls=differences-table1]")
    count = box.find_element(By.XPATH, "./ancestor::div[@class='tools']/output")
    assert count.get_attribute("aria-live") == "polite"
    assert len(rows(page, "differences-table1")) == 4
    box.send_keys("5-SHOT gain")
    assert [(row[1], row[7]) for row in rows(page, "differences-table1")] == [("5-shot", "▲ gain")]
    assert count.text == "1 of 4 rows"
    box.clear()
    box.send_keys("-4")
    assert {row[7] for row in rows(page, "differences-table1")} == {
        "▼ loss",
        "● n = 4: shown, not tested",
    }
    box.clear()
    box.send_keys(" ")
    assert len(rows(page, "differences-table1")) == 4
    assert count.text == ""


def test_every_chart_is_drawn(page):
    charts = page.find_elements(By.CSS_SELECTOR, ".chart")
    assert len(charts) == 2 + 1 + 1 + 4, "differences, profile, gains over steps, learning curves"
    for chart in charts:
        assert chart.find_element(By.CSS_SELECTOR, "svg.marks").is_displayed()
        described = chart.find_element(By.CSS_SELECTOR, "[role=graphics-document]").get_attribute(
            "aria-label"
        )
        kinds = (
            "Paired differences of T & U",
            "Performance profile of T & U",
            "Paired improvement on valid",
            "Learning curves, ",
        )
        assert described.startswith(kinds)
        assert chart.size["width"] > 300
    points = charts[0].find_elements(By.CSS_SELECTOR, "g.mark-symbol.role-mark path")
    assert len(points) == 2
    lines = charts[6].find_elements(By.CSS_SELECTOR, "g.mark-line.role-mark path")
    assert len(lines) == 2, "the mean of each method"


def tooltip(page, element) -> dict[str, str]:
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    ActionChains(page).move_to_element(element).perform()
    shown = (By.CSS_SELECTOR, "#vg-tooltip-element.visible tr")
    tooltips = WebDriverWait(page, 5).until(lambda b: b.find_elements(*shown))
    cells = [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in tooltips]
    return {key.removesuffix(":"): value for key, value in cells}


def curve_lines(page, chart) -> list:
    return page.find_elements(By.CSS_SELECTOR, f"#{chart} g.mark-line.role-mark path")


def test_single_runs_are_shown_by_a_toggle_and_one_method_by_its_legend(page):
    assert len(curve_lines(page, "curve-1-3")) == 2
    axis = page.find_element(By.CSS_SELECTOR, "#curve-1-3 g.role-axis").get_attribute("aria-label")
    toggle = page.find_element(By.ID, "single-runs")
    toggle.click()
    WebDriverWait(page, 5).until(lambda b: len(curve_lines(b, "curve-1-3")) == 2 * 5 + 2)
    again = page.find_element(By.CSS_SELECTOR, "#curve-1-3 g.role-axis").get_attribute("aria-label")
    assert again == axis, "runs do not move the axes"
    toggle.click()
    WebDriverWait(page, 5).until(lambda b: len(curve_lines(b, "curve-1-3")) == 2)
    name = page.find_elements(By.CSS_SELECTOR, "#curve-1-3 .role-legend-label text")[0]
    ActionChains(page).move_to_element(name).click().perform()

    def shown(b):
        return [float(line.get_attribute("opacity") or 1) for line in curve_lines(b, "curve-1-3")]

    WebDriverWait(page, 5).until(
        lambda b: sorted(value > 0.5 for value in shown(b)) == [False, True]
    )


def test_pointing_at_a_curve_tells_run_step_and_score(page):
    points = page.find_elements(By.CSS_SELECTOR, "#curve-1-3 g.mark-symbol.role-mark path")
    assert len(points) == 2 * 3, "of the means"
    assert tooltip(page, points[-1]) == {
        "method": "MAML + CML <i>",
        "seed": "mean of 5",
        "step": "100",
        "score": "50",
    }
    thick = page.find_elements(
        By.CSS_SELECTOR, '#curve-1-3 g.mark-line.role-mark path[stroke-width="3"]'
    )
    assert len(thick) == 1, "its line stands out"


def test_pointing_at_a_difference_tells_what_its_table_says(page):
    line = page.find_elements(By.CSS_SELECTOR, "#forest-table1-meta g.mark-rect.role-mark path")[1]
    names = [th.text for th in page.find_elements(By.CSS_SELECTOR, "#differences-table1 thead th")]
    told = tooltip(page, line)
    row = [re.sub("^[▲▼◆●] ", "", text) for text in rows(page, "differences-table1")[1]]
    assert told == dict(zip(names, row, strict=True))
    assert told["verdict"] == "gain"


def test_a_phone_shows_it_without_sideways_scrolling(page, address):
    device = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    opened(page, address)
    assert page.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [
        360,
        360,
    ]
    wide = page.find_element(By.CSS_SELECTOR, ".wide:has(#differences-table1)")
    assert page.execute_script(
        "return arguments[0].scrollWidth <= arguments[0].clientWidth", wide
    ), "each row is a card"
    for chart in page.find_elements(By.CSS_SELECTOR, ".chart svg.marks"):
        assert 200 < chart.rect["width"] <= 360


def test_paper_has_everything_and_no_controls(page):
    box = page.find_element(By.CSS_SELECTOR, "input[aria-controls=differences-table1]")
    box.send_keys("gain")
    closed = len(page.find_elements(By.CSS_SELECTOR, "main details:not([open], .chart *)"))
    assert closed > 1
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not box.is_displayed()
    assert not page.find_element(By.TAG_NAME, "nav").is_displayed()
    assert not any(
        part.is_displayed() for part in page.find_elements(By.CSS_SELECTOR, ".chart details")
    )
    assert len(rows(page, "differences-table1")) == 4, (
        "a filter that is not seen leaves nothing out"
    )
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not page.find_elements(By.CSS_SELECTOR, "main details:not([open], .chart *)")
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert len(page.find_elements(By.CSS_SELECTOR, "main details:not([open], .chart *)")) == closed
    paper = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert paper.startswith(b"%PDF")


def test_charts_are_legible_on_a_dark_page(page):
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    text = page.find_element(By.CSS_SELECTOR, "#curve-1-1 g.role-axis-label text")
    body = page.find_element(By.TAG_NAME, "body")
    assert text.value_of_css_property("fill") == "rgb(230, 237, 243)"
    assert body.value_of_css_property("background-color") == "rgba(13, 17, 23, 1)"


def test_a_failed_run_shows_its_log(page):
    part = page.find_element(By.CSS_SELECTOR, "#failures details")
    assert not part.find_element(By.TAG_NAME, "pre").is_displayed()
    part.find_element(By.TAG_NAME, "summary").click()
    assert part.find_element(By.TAG_NAME, "pre").text == "RuntimeError: <b>out of memory</b>"
