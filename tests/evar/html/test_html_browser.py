"""The page in a browser: it draws what it should, without a word on the console, in light, in dark and in print."""

import json
import re
import shutil
import subprocess

import pytest
from made_up import folder_of_everything

from evar.report import report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000",
)  # fmt: skip

CLICKS = """
<script>
window.addEventListener("load", () => {
  const out = {}, names = () => [...document.querySelectorAll("#table0 tbody tr:not([hidden])")]
    .filter((row) => getComputedStyle(row).display !== "none").map((row) => row.dataset.name);
  const head = document.querySelectorAll("#table0 thead button")[1];
  head.click(); out.down = names().slice(0, 2); out.sort = head.closest("th").getAttribute("aria-sort");
  head.click(); out.up = names().slice(0, 1);
  const box = document.querySelector("[data-hides=table0]");
  box.click(); out.own = names().sort(); box.click();
  const filter = document.getElementById("filter");
  filter.value = "alph"; filter.dispatchEvent(new Event("input")); out.filtered = names();
  filter.value = ""; filter.dispatchEvent(new Event("input"));
  const label = document.querySelector("[data-shows=dog]");
  label.click(); out.shown = [...document.querySelectorAll("svg.map g.on")].map((group) => group.dataset.label);
  const mark = document.querySelector("svg.map path");
  mark.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  out.tip = document.getElementById("tip").textContent;
  const choice = document.getElementById("confusion-choice");
  choice.value = choice.options.length - 1; choice.dispatchEvent(new Event("change"));
  out.drawn = document.querySelector("#confusion-drawn h3").textContent;
  const answer = document.createElement("pre");
  answer.id = "answer"; answer.textContent = JSON.stringify(out); document.body.append(answer);
});
</script>
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    profile = tmp_path_factory.mktemp("profile")

    def run(*words):
        command = [found, *FLAGS, f"--user-data-dir={profile}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    folder_of_everything(folder)
    path = tmp_path_factory.mktemp("page") / "report.html"
    report(results=folder, html=path)
    return path


def said(done):
    """Return what the page said on the console."""
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_script_draws_and_the_console_stays_empty(browser, page):
    done = browser("--dump-dom", page.as_uri())
    assert not said(done)
    drawn = done.stdout
    assert drawn.count('class="cell"') == 6, "the counts above zero of the first matrix"
    assert "cat → dog: 8 (20 %)" in drawn
    assert re.search(r'<div class="drawn scroll" id="classes-drawn"[^>]*><table', drawn)


def test_a_mistake_on_the_page_would_be_heard(browser, page):
    broken = page.with_name("broken.html")
    broken.write_text(page.read_text().replace("</main>", '</main><img src="https://example.org/x.png">'))
    assert said(browser("--dump-dom", broken.as_uri())), "the policy forbids to load it, and says so"


def test_sorting_filter_legend_pointer_and_choice_work(browser, page):
    clicked = page.with_name("clicked.html")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    clicked.write_text(text.replace("</body>", CLICKS + "</body>"))
    done = browser("--dump-dom", clicked.as_uri())
    assert not said(done)
    found = json.loads(re.search(r'<pre id="answer">(.*?)</pre>', done.stdout).group(1))
    assert found["down"] == ["[M2D-CLAP_2025]", "[CLAP_2023]"] and found["sort"] == "descending"
    assert found["up"] == ["[OWSM v3.1 ebf base]"]
    assert found["own"] == ["alpha", "beta"] and found["filtered"] == ["alpha"]
    assert found["shown"] == ["dog"] and found["tip"] == "clip 0.wav · cat"
    assert found["drawn"] == "beta on us8k, linear evaluation"


def test_light_dark_and_print(browser, page, tmp_path):
    image = pytest.importorskip("PIL.Image")
    brightness = {}
    for scheme, words in {"light": (), "dark": ("--blink-settings=preferredColorScheme=0",)}.items():
        shot = tmp_path / f"{scheme}.png"
        browser("--window-size=1000,1200", f"--screenshot={shot}", *words, page.as_uri())
        drawn = image.open(shot).convert("L")
        assert drawn.size == (1000, 1200) and len(set(drawn.getdata())) > 30, "not an empty page"
        brightness[scheme] = drawn.getpixel((500, 1190))
    assert brightness["light"] > 240 and brightness["dark"] < 40
    pdf = tmp_path / "page.pdf"
    browser(f"--print-to-pdf={pdf}", "--no-pdf-header-footer", page.as_uri())
    assert pdf.read_bytes()[:5] == b"%PDF-" and pdf.stat().st_size > 20_000
