"""The course as a website: built once, each link followed, each page looked at in a browser."""

import functools
import http.server
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import tomlkit

ROOT = Path(__file__).parents[1]
AXE = ROOT / ".ci" / "site" / "node_modules" / "axe-core" / "axe.min.js"
REPOSITORY = tomlkit.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "urls"
]["Repository"]
PATIENCE = 20_000  # milliseconds
MODULES = sorted(path.name for path in ROOT.glob("0*_*"))
PAGES = ["index.html"] + [f"{m}/{part}.html" for m in MODULES for part in ("theory", "notebook")]

if not AXE.exists():
    pytest.skip("make .venv/site installs what the site is built with", allow_module_level=True)
bs4 = pytest.importorskip("bs4")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    script = ROOT / ".ci" / "site" / "build.py"
    done = subprocess.run([sys.executable, script, out], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return out


def follow(file: Path) -> list[str]:
    """The links, pictures, scripts and styles of a page that lead nowhere, or away."""
    page, lost = parsed(file), []
    for tag in page.find_all(["a", "img", "source", "script", "link", "iframe"]):
        target = tag.get("href") or tag.get("src") or tag.get("srcset")
        if not target or target.startswith("data:"):
            continue
        parts = urlsplit(target)
        if parts.scheme:
            kind, _, path = target.removeprefix(f"{REPOSITORY}/").partition("/main/")
            ours = kind in ("blob", "tree")
            if tag.name != "a" or ours and not (ROOT / path.partition("#")[0]).exists():
                lost.append(target)
            continue
        there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        anchor = unquote(parts.fragment)
        if not there.is_file() or anchor and not parsed(there).find(id=anchor):
            lost.append(target)
    return lost


@functools.cache
def parsed(file: Path) -> Any:
    return bs4.BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")


@pytest.mark.parametrize("name", [*PAGES, "search.html"])
def test_every_link_of_the_site_leads_somewhere(site, name):
    assert not follow(site / name)


@pytest.mark.parametrize(
    "link",
    [
        '<a href="nowhere.html">',
        '<a href="01_attention/theory.html#nowhere">',
        f'<a href="{REPOSITORY}/blob/main/nowhere.py">',
        '<img src="nowhere.svg">',
        '<script src="https://example.org/away.js">',
    ],
)
def test_a_link_that_leads_nowhere_is_found(site, link):
    (site / "lost.html").write_text(link, encoding="utf-8")
    parsed.cache_clear()
    assert len(follow(site / "lost.html")) == 1


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def tab(browser, address) -> tuple[Any, list[str]]:
    """A page of a browser, and what went wrong in it: errors, and requests that leave the site."""
    page, wrong = browser.new_page(), []
    page.set_default_timeout(PATIENCE)

    def ask(route: Any) -> None:
        if route.request.url.startswith(address):
            route.continue_()
        else:
            wrong.append(f"asks {route.request.url}")
            route.abort()

    page.route(lambda url: not url.startswith(("data:", "blob:")), ask)
    page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    return page, wrong


DRAWN = """() => [...document.querySelectorAll(".mermaid")].every((p) => p.querySelector("svg"))"""
READY = """async () => {
  for (const details of document.querySelectorAll("details:not(.live)")) details.open = true;
  for (const image of document.images) await image.decode().catch(() => {});
  await document.fonts.ready;
  await Promise.all(document.getAnimations().map((one) => one.finished));  // details fade in
}"""
FAULTS = r"""() => {
  const faults = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  for (const image of all("img")) {
    if (!image.alt.includes(" ")) faults.push(`no words for ${image.src}`);
    if (!image.naturalWidth) faults.push(`no picture ${image.src}`);
  }
  const levels = all("h1, h2, h3, h4, h5, h6").map((heading) => Number(heading.tagName[1]));
  const jump = levels.some((level, i) => level > (levels[i - 1] ?? 0) + 1);
  if (jump || levels.lastIndexOf(1) !== 0) faults.push(`headings ${levels}`);
  for (const error of all(".katex-error, .error-text")) faults.push(`error: ${error.textContent}`);
  for (const math of all(".math:not(:has(.katex))")) faults.push(`not set: ${math.textContent}`);
  const prose = document.body.cloneNode(true);
  for (const other of prose.querySelectorAll("pre, code, script, style, .katex")) other.remove();
  const raw = prose.textContent.match(/\$\$|\\[([]|\\[a-z]{2,}/);
  if (raw) faults.push(`LaTeX: ${raw[0]}`);
  return faults;
}"""
NAMES_AND_CONTRAST = """async (rules) => (await axe.run({ exclude: ["iframe"] }, {
  runOnly: rules, resultTypes: ["violations"],
})).violations.flatMap(({ id, nodes }) => nodes.map(({ html, any }) =>
  `${id}: ${html.slice(0, 200)} ${any.map(({ message }) => message)}`))"""
SIDEWAYS = """() => [...document.querySelectorAll("html, body *:not(pre, svg, svg *)")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1)
  .filter((box) => box === document.documentElement
    || ["auto", "scroll"].includes(getComputedStyle(box).overflowX))
  .map((box) => `sideways: ${box.className} ${box.textContent.trim().slice(0, 80)}`)"""


def look(tab: tuple[Any, list[str]], url: str) -> list[str]:
    """All that is wrong with a page, on a light and a dark screen and on a phone."""
    page, wrong = tab
    wrong.clear()
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(url)
    page.wait_for_function(DRAWN)
    page.evaluate(READY)
    page.add_script_tag(path=AXE)
    faults = page.evaluate(FAULTS) + page.evaluate(NAMES_AND_CONTRAST, ["wcag2a", "wcag2aa"])
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    page.wait_for_timeout(100)
    page.wait_for_function(DRAWN)
    faults += [f"dark {fault}" for fault in page.evaluate(NAMES_AND_CONTRAST, ["color-contrast"])]
    page.set_viewport_size({"width": 390, "height": 844})
    return faults + page.evaluate(SIDEWAYS) + wrong


@pytest.mark.parametrize("name", PAGES)
def test_a_page_reads_well_on_every_screen(tab, address, name):
    assert not look(tab, address + name)


@pytest.mark.parametrize(
    "fault, body",
    [
        ("no words", '<h1>A</h1><img src="explore.svg">'),
        ("no words", '<h1>A</h1><img src="explore.svg" alt="explore.svg">'),
        ("no picture", '<h1>A</h1><img src="nowhere.svg" alt="A picture">'),
        ("headings", "<h1>A</h1><h3>B</h3>"),
        ("headings", "<h1>A</h1><h1>B</h1>"),
        ("headings", "<h2>A</h2>"),
        ("not set", '<h1>A</h1><span class="math">x</span>'),
        ("error", '<h1>A</h1><span class="katex-error">x</span>'),
        ("LaTeX", r"<h1>A</h1>\frac 1 2"),
        ("LaTeX", "<h1>A</h1>$$"),
        ("color-contrast", '<h1>A</h1><p style="color: #999">faint</p>'),
        ("dark color-contrast", '<h1>A</h1><p style="color: #111">black</p>'),
        ("link-name", '<h1>A</h1><a href="index.html"></a>'),
        ("sideways", '<h1>A</h1><div style="width: 500px">wide</div>'),
        (
            "sideways",
            '<h1>A</h1><div style="overflow: auto"><p style="width: 500px">wide</p></div>',
        ),
        ("asks", '<h1>A</h1><script src="https://example.org/away.js"></script>'),
        ("torn", '<h1>A</h1><script>throw new Error("torn")</script>'),
    ],
)
def test_a_fault_of_a_page_is_found(tab, address, site, fault, body):
    style = "body {background: #fff} @media (prefers-color-scheme: dark) {body {background: #000}}"
    head = f'<!doctype html><html lang="en"><title>A</title><style>{style}</style>'
    (site / "faulty.html").write_text(f"{head}<body>{body}", encoding="utf-8")
    assert any(found.startswith(fault) for found in look(tab, address + "faulty.html"))


def test_a_diagram_that_cannot_be_drawn_is_found(tab, address, site):
    page = (site / "02_multihead" / "theory.html").read_text(encoding="utf-8")
    torn = page.replace('class="mermaid">flowchart', 'class="mermaid">flow chart')
    (site / "02_multihead" / "torn.html").write_text(torn, encoding="utf-8")
    tab[0].set_default_timeout(2000)
    with pytest.raises(Exception, match="Timeout"):
        look(tab, address + "02_multihead/torn.html")
    tab[0].set_default_timeout(PATIENCE)


def test_the_search_finds_rope_without_a_server_of_its_own(tab, address):
    page, wrong = tab
    wrong.clear()
    page.goto(address + "search.html?q=RoPE")
    found = '#search-results li:has(a[href^="04_embeddings/theory.html"]) .context'
    said = page.locator(found).text_content()
    assert "RoPE" in said and "\\(" not in said
    assert not wrong


def test_next_and_previous_walk_through_the_ten_modules(site):
    for way, pages in (("next", PAGES), ("prev", PAGES[::-1])):
        for name, then in itertools.pairwise(pages):
            link = parsed(site / name).select_one(f"a.{way}-page")["href"]
            assert (site / name).parent.joinpath(link).resolve() == site / then


def test_a_module_leads_to_its_exercises_and_reference(site):
    for name in PAGES[1:]:
        links = {link.get("href") for link in parsed(site / name).select("article a")}
        for part in ("exercises.py", "reference.py"):
            assert f"{REPOSITORY}/blob/main/{Path(name).parent}/{part}" in links


def test_the_model_is_fetched_when_it_is_asked_for_and_computes(tab, address):
    page, wrong = tab
    wrong.clear()
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    assert address + "explore.html" not in requests
    page.click(".live summary")
    model = page.frame_locator(".live iframe")
    model.locator("html[data-ready]").wait_for()
    assert not wrong
    with page.expect_request(f"{REPOSITORY}**") as asked:
        model.locator("#home a").click()
    assert asked.value.frame == page.main_frame, "the repository lets no page frame it"


def test_a_diagram_follows_the_light(tab, address):
    page, _ = tab
    page.emulate_media(color_scheme="light")
    page.goto(address + "02_multihead/theory.html")
    color = "getComputedStyle(document.querySelector('.mermaid .node rect')).fill"
    page.wait_for_selector(".mermaid svg")
    light = page.evaluate(color)
    choose(page, "dark")
    page.wait_for_function(f"{color} !== {light!r}")


def choose(page: Any, light: str) -> None:
    """By the button of a wide window, which a phone has elsewhere."""
    page.set_viewport_size({"width": 1280, "height": 900})
    while page.evaluate("document.body.dataset.theme") != light:
        page.click(".theme-toggle-content button")


def test_a_picture_follows_the_light_that_its_reader_chose(tab, address):
    page, _ = tab
    for system, chosen in (("light", "dark"), ("dark", "light")):
        page.emulate_media(color_scheme=system)
        page.goto(address)
        choose(page, chosen)
        picture = "document.querySelector('picture img[src*=terminal]')"
        page.wait_for_function(f"{picture}.currentSrc.endsWith('-{chosen}.svg')")


def test_what_is_printed_in_a_row_is_one_output(site):
    for module in MODULES:
        for cell in parsed(site / module / "notebook.html").select(".cell_output"):
            outputs = cell.find_all(class_="output", recursive=False)
            printed = ["stream" in box.get("class", []) for box in outputs]
            assert not any(map(all, itertools.pairwise(printed)))


def test_the_front_page_says_where_the_course_is(site):
    assert f"git clone {REPOSITORY}" in parsed(site / "index.html").text
