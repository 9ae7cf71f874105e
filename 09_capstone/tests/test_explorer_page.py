"""The page that shows a model from inside, as someone with a mouse or a keyboard meets it."""

import json
import math
import operator
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

from tiny_transformer.capstone.explore import write_explorer
from tiny_transformer.capstone.reference import load_run
from tiny_transformer.capstone.report import attention_maps
from tiny_transformer.engineering.config import RunConfig, write_config
from tiny_transformer.engineering.reference import save_checkpoint
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig

ROOT = Path(__file__).parents[2]
CHARACTERS = "\n !',.?BIabcdefghijklmnopqrstuvwxyz"
CONFIG = ModelConfig(
    vocab_size=len(CHARACTERS), max_len=32, d_model=16, n_layers=2, n_heads=2, d_ff=32
)
LINE = "But soft! what light"
READY = "html[data-ready]"
BOTH = pytest.mark.parametrize("hand", ["mouse", "keyboard"])
CONTROLS = "a[href], button, input, textarea, [tabindex]"
TOLD = re.compile(r"([\d.]+)% (?:on|of its weight)")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of a random model that was kept at three moments."""
    folder = tmp_path_factory.mktemp("runs") / "random"
    folder.mkdir()
    torch.manual_seed(1)
    write_config(folder / "config.toml", RunConfig(model=CONFIG))
    for step, where in ((1, "snapshots/step-000001"), (10, "snapshots/step-000010"), (100, "best")):
        model = build(CONFIG)
        for weight in model.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
        state = {"step": step, "characters": CHARACTERS, "model": model.state_dict()}
        save_checkpoint(folder / where, {**state, "val_loss": 4.0 - step / 100})
    losses = ({"step": step, "train_loss": 4.0 - step / 100} for step in (1, 10, 50, 100))
    lines = "".join(json.dumps(record) + "\n" for record in losses)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def file(run) -> Path:
    write_explorer(run, run / "explore.html", "A random model", lambda _: [LINE])
    return run / "explore.html"


@pytest.fixture(scope="module")
def tab(browser, file) -> tuple[Any, list[str], list]:
    """The page, what goes wrong in it, and how it looks when it opens."""
    page, wrong = browser.new_page(), []
    page.set_default_timeout(5000)
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    as_always(page)
    page.goto(file.as_uri())
    page.wait_for_selector(READY)
    place = page.get_attribute("#surprise", "aria-activedescendant")
    head = page.get_attribute("#heads [aria-checked=true]", "aria-label")
    moved = [f"#{place}[aria-selected=false]", f"#heads [aria-label='{head}'][aria-checked=false]"]
    return page, wrong, [page.evaluate(SHOWN), moved]


def as_always(page: Any) -> None:
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.set_viewport_size({"width": 1000, "height": 700})
    page.mouse.move(0, 0)


def open_again(page: Any) -> None:
    page.reload()
    page.wait_for_selector(READY)


@pytest.fixture
def page(tab) -> Iterator[Any]:
    """The page as it opens, in which nothing goes wrong."""
    page, wrong, opened = tab
    wrong.clear()
    as_always(page)
    if not page.evaluate(BACK_TO, opened):
        open_again(page)
    yield page
    assert not wrong


@pytest.fixture
def shows(page) -> Any:
    """Waits until an element's text matches, and gives the text."""

    def wait(selector: str, pattern: str) -> str:
        page.locator(selector).filter(has_text=re.compile(pattern)).wait_for(state="attached")
        return page.inner_text(selector)

    return wait


def press(page: Any, selector: str, hand: str) -> None:
    if hand == "mouse":
        page.click(selector)
    else:
        page.focus(selector)
        page.keyboard.press("Space")


def slide(page: Any, selector: str, hand: str, where: float) -> None:
    """To a share of a slider's length: by a click, or from its end by as many keys as it takes."""
    slider = page.locator(selector)
    if hand == "mouse":
        box = slider.bounding_box()
        x = 1 + where * (box["width"] - 2)
        slider.click(position={"x": x, "y": box["height"] / 2})
        return
    low, high, step = (float(slider.get_attribute(name)) for name in ("min", "max", "step"))
    page.focus(selector)
    page.keyboard.press("Home")
    for _ in range(round(where * (high - low) / step)):
        page.keyboard.press("ArrowRight")


class TestTheText:
    def test_what_is_typed_is_read_and_each_character_has_its_surprise(self, page, shows):
        page.fill("#text", "I be or not")
        shows("#mean", "over 10 characters")
        assert "".join(page.locator("#surprise [role=option]").all_inner_texts()) == "I␣be␣or␣not"
        note = shows("#surprise-note", "Character 11 of 11")
        nats, share = re.search(r"([\d.]+) nats, it was given ([\d.]+)%", note).groups()
        assert float(share) / 100 == pytest.approx(math.exp(-float(nats)), abs=0.01)

    @BOTH
    def test_a_position_is_chosen(self, page, shows, hand):
        if hand == "mouse":
            page.click("#surprise-3")
        else:
            page.focus("#surprise")
            for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight", "End", "ArrowLeft"):
                page.keyboard.press(key)
            shows("#count", "^19 of 20$")
            page.keyboard.press("Home")
            page.keyboard.press("PageDown")
            for _ in range(7):
                page.keyboard.press("ArrowLeft")
        shows("#count", "^4 of 20$")
        shows("#next-note", "But␣.*the text goes on with")
        shows("#depth-note", "But␣.*the text goes on with")
        assert page.get_attribute("#surprise", "aria-activedescendant") == "surprise-3"

    @BOTH
    def test_the_line_in_sight_moves_it_by_one(self, page, shows, hand):
        page.click("#surprise-3")
        press(page, "#back", hand)
        shows("#count", "^3 of 20$")
        press(page, "#forth", hand)
        press(page, "#forth", hand)
        shows("#count", "^5 of 20$")

    def test_the_mouse_over_a_character_says_its_surprise_and_chooses_nothing(self, page, shows):
        page.click("#surprise-3")
        page.hover("#surprise-7")
        shows("#surprise-note", "^Character 8 of 20")
        page.hover("h1")
        shows("#surprise-note", "^Character 4 of 20")

    def test_a_new_line_is_shown_and_breaks_the_line(self, page, shows):
        page.fill("#text", "I am\nhere")
        shows("#surprise", "⏎")
        assert page.locator("#surprise br").count() == 1

    @pytest.mark.parametrize(
        "text, read, unknown",
        [
            ("", 0, "^$"),
            ("a", 1, "^$"),
            ("a" * 40, 40, "^$"),
            ("to be or not " * 770, 10010, "^$"),
            ("\n\n\n", 3, "^$"),
            ("<img src=x onerror=alert`hi`>", 23, r"left out: <.*U\+003C.*= \(U\+003D\) × 2"),
            ("a\U0001f600\u200d", 1, "\U0001f600 .U.1F600., U.200D."),
            ("\U0001f600", 0, "\U0001f600"),
            ("\u202eß中\x07", 0, r"U\+202E, ß \(U\+00DF\), 中 \(U\+4E2D\), U\+0007"),
            ("ABCDEFGHJKLM", 1, "and 3 more kinds"),
        ],
        ids=lambda value: repr(value[:12]) if isinstance(value, str) else "",
    )
    def test_any_text_may_be_written(self, page, shows, text, read, unknown):
        page.fill("#text", text)
        shows("#count", f"^{read} of {read}$" if read else "^$")
        shows("#unknown", unknown)
        assert page.locator("img").count() == 0
        if read:
            page.click("#step")
            shows("#count", f"^{read + 1} of {read + 1}$")
            assert page.input_value("#text").startswith(text[:30])
        else:
            shows("#surprise-note", "nothing to read")
            assert not page.is_enabled("#step") and not page.is_enabled("#run")
        page.click("#parts button >> nth=0")
        page.focus("#map")
        page.keyboard.press("ArrowUp")
        page.focus("#looks")
        page.keyboard.press("End")

    def test_of_a_text_beyond_the_context_the_rest_is_named(self, page, shows):
        page.fill("#text", "to be or not " * 4)
        shows("#mean", "no longer sees the 32 before these: its context is 32")
        assert page.locator("#surprise [role=option]").count() == 20

    def test_changes_that_come_while_another_is_read_all_arrive(self, page, shows):
        page.evaluate("""() => {
            const box = document.querySelector("#text");
            for (const text of ["I", "I am", "I am here"]) {
                box.value = text;
                box.dispatchEvent(new Event("input"));
            }
            document.querySelectorAll("#parts button")[0].click();
            document.querySelectorAll("#parts button")[1].click();
            document.querySelector("#back").click();
        }""")
        shows("#count", "^9 of 9, 2 off$")
        shows("#away-loss", "without these 2 parts")
        shows("#depth-note", "am␣here")


class TestWhatComesNext:
    @BOTH
    def test_sliders_cut_and_say_which_rule_did(self, page, shows, hand):
        slide(page, "#top-k", hand, 0.1)
        k = int(shows("#top-k-is", r"^\d$"))
        shows("#bars", "top-k")
        assert page.locator("#bars tr:not(.cut)").count() == k
        slide(page, "#top-k", hand, 1)
        shows("#top-k-is", "off")
        slide(page, "#top-p", hand, 0.3)
        shows("#bars", "top-p")
        slide(page, "#temperature", hand, 0)
        shows("#bars", "greedy")
        assert page.locator("#bars tr:not(.cut) .number").all_inner_texts() == ["100%"]

    @BOTH
    def test_a_step_writes_one_character_says_why_and_is_taken_back(self, page, shows, hand):
        press(page, "#step", hand)
        shows("#drawn", r"drawn with [\d.]+%, from all 35$")
        assert len(page.input_value("#text")) == len(LINE) + 1
        assert page.locator("#surprise .written").count() == 1
        slide(page, "#temperature", hand, 0)
        press(page, "#step", hand)
        shows("#drawn", "greedy, the likeliest")
        press(page, "#take-back", hand)
        shows("#count", "of 20$")
        assert page.input_value("#text") == LINE and not page.locator("#drawn li").count()

    @BOTH
    def test_it_runs_until_it_is_stopped(self, page, shows, hand):
        press(page, "#run", hand)
        page.locator("#drawn li >> nth=4").wait_for()
        assert page.inner_text("#run") == "stop"
        press(page, "#run", hand)
        shows("#run", "^run$")
        page.wait_for_timeout(50)
        written = page.input_value("#text")
        page.wait_for_timeout(100)
        assert page.input_value("#text") == written

    @pytest.mark.parametrize("stop", ["Escape", "typing"])
    def test_a_run_ends_too_by(self, page, shows, stop):
        page.click("#run")
        page.locator("#drawn li >> nth=2").wait_for()
        page.keyboard.press("Escape") if stop == "Escape" else page.fill("#text", "I am")
        shows("#run", "^run$")

    def test_a_position_that_is_chosen_meanwhile_stays(self, page, shows):
        page.click("#run")
        page.locator("#drawn li >> nth=1").wait_for()
        page.evaluate("document.querySelector('#back').click()")
        chosen = page.inner_text("#count").split()[0]
        page.locator("#drawn li >> nth=5").wait_for()
        page.keyboard.press("Escape")
        shows("#run", "^run$")
        shows("#count", f"^{chosen} of ")

    def test_a_seed_below_0_is_shown_as_it_is_used_and_what_was_written_can_be_taken_back(
        self, page, shows
    ):
        page.click("#step")
        shows("#count", "of 21$")
        page.fill("#seed", "-3")
        page.press("#seed", "Enter")
        assert page.input_value("#seed") == "0"
        page.click("#take-back")
        shows("#count", "of 20$")

    def test_a_seed_writes_the_same_again_and_another_another(self, page, shows):
        def three() -> str:
            for _ in range(3):
                page.click("#step")
            shows("#count", "of 23$")
            text = page.input_value("#text")
            page.click("#take-back")
            shows("#count", "of 20$")
            return text

        first = three()
        assert three() == first
        page.focus("#seed")
        page.keyboard.press("ArrowUp")
        assert page.input_value("#seed") == "2" and three() != first


class TestAttention:
    @BOTH
    def test_a_head_is_chosen_and_its_sentence_has_the_numbers_that_pytorch_has(
        self, page, shows, run, hand
    ):
        if hand == "mouse":
            page.click("#heads [aria-label='layer 1, head 1']")
        else:
            page.focus("#heads [aria-checked=true]")
            for key in ("ArrowUp", "ArrowLeft", "ArrowRight", "ArrowDown", "Home", "End"):
                page.keyboard.press(key)
        sentence = shows("#sentence", "^On this text layer 1, head 1 ")
        model, tokenizer = load_run(run)
        weights = attention_maps(model, torch.tensor([tokenizer.encode(LINE)]))[1][0, 1]
        told = [float(share) for share in TOLD.findall(sentence)]
        words = [[0, 3], [4, 8], [10, 14], [15, 20]]  # But, soft, what, light
        places = [
            [(q, q) for q in range(20)],
            [(q, q - 1) for q in range(1, 20)],
            [(q, first) for first, end in words for q in range(first + 2, end)],
            [
                (q, blank)
                for blank, end in ((3, 9), (9, 14), (14, 20))
                for q in range(blank + 2, end)
            ],
        ]
        ours = [100 * sum(weights[q, k].item() for q, k in pairs) / len(pairs) for pairs in places]
        assert sorted(told) == pytest.approx(sorted(ours), abs=0.51)

    def test_entropies_are_those_of_module_02(self, page, run):
        model, tokenizer = load_run(run)
        maps = torch.cat(attention_maps(model, torch.tensor([tokenizer.encode(LINE)]))).flatten(
            0, 1
        )
        ours = -torch.special.xlogy(maps, maps).sum(-1).mean(-1)
        told = [float(text) for text in page.locator("#heads .entropy").all_inner_texts()]
        assert told == pytest.approx(ours.tolist(), abs=0.006)

    def test_hovering_the_text_or_the_map_tints_by_what_that_position_looks_at(self, page, shows):
        page.hover("#looks-7")
        shows("#map-note", r"^\s*t\s+\(8\) puts")
        shares = [
            float(span.evaluate("span => span.style.getPropertyValue('--v')"))
            for span in page.locator("#looks [role=option]").all()
        ]
        assert max(shares[:8]) == 1 and not any(shares[8:])
        side = page.locator("#map-canvas").bounding_box()["width"]
        page.hover("#map", position={"x": 2.5 / 21 * side, "y": 10.5 / 21 * side})
        shows("#map-note", r"\(11\) puts [\d.<% ]+on\s+t\s+\(3\)")
        page.hover("h1")
        shows("#map-note", r"\(15\) puts")

    @BOTH
    def test_the_large_map_chooses_a_query(self, page, shows, hand):
        if hand == "mouse":
            side = page.locator("#map-canvas").bounding_box()["width"]
            page.click("#map", position={"x": 1, "y": 13.5 / 21 * side})
        else:
            page.focus("#map")
            page.keyboard.press("ArrowUp")
        shows("#count", "^14 of 20$")
        if hand == "keyboard":
            for _ in range(14):
                page.keyboard.press("ArrowLeft")
            page.keyboard.press("ArrowRight")
            shows("#map-note", r"\(14\) puts [\d.<% ]+on\s+u\s+\(2\)")


class TestTheOtherPanels:
    def test_the_depth_ends_with_what_the_model_says(self, page):
        rows = page.locator("#depth tbody tr")
        assert rows.count() == CONFIG.n_layers + 1
        first = page.locator("#bars tr >> nth=0").inner_text().split()
        assert rows.last.locator(".guess >> nth=0").inner_text().split() == first

    @BOTH
    def test_a_part_is_taken_away_and_comes_back(self, page, shows, hand):
        for part in ("layer 0, head 1", "layer 1, feed-forward"):
            press(page, f"#parts [aria-label='{part}']", hand)
            page.wait_for_selector(f"#parts [aria-label='{part}'][aria-pressed=true]")
        text = shows("#away-loss", "without these 2 parts")
        before, after, change = map(float, re.findall(r"\d+\.\d+", text))
        assert abs(after - before) == pytest.approx(change, abs=0.011)
        assert page.inner_text("#before") != page.inner_text("#after")
        press(page, "#parts [aria-label='layer 0, head 1']", hand)
        shows("#away-loss", "without this part")
        press(page, "#all-back", hand)
        shows("#away-loss", "Nothing is switched off")

    @BOTH
    def test_each_part_is_tried_in_turn(self, page, shows, hand):
        press(page, "#try-each", hand)
        shows("#try-note", "Missed most: layer")
        costs = page.locator("#parts .habit").all_inner_texts()
        assert len(costs) == CONFIG.n_layers * (CONFIG.n_heads + 1) and all(costs)
        page.click("#parts [aria-label='layer 0, head 1']")
        text = shows("#away-loss", "without this part")
        assert costs[1].lstrip("+−") == re.findall(r"\d+\.\d+", text)[2]
        page.fill("#text", "another text")
        shows("#count", "of 12")
        assert not any(page.locator("#parts .habit").all_inner_texts())

    def test_the_cache_says_what_it_saves(self, page, shows):
        open_again(page)
        press(page, "#write-ten", "mouse")
        page.locator("#drawn li >> nth=9").wait_for()
        shows("#run", "^run$")
        shows("#cache-note", r"^30 of 32 positions are kept.*: 1,920 numbers")
        press(page, "#cache", "keyboard")
        shows("#cache-note", "^Nothing is kept")
        press(page, "#write-ten", "keyboard")
        page.locator("#drawn li >> nth=19").wait_for()
        times = shows(
            "#saved", r"costs \d+ times the multiplications.*with the cache and \d+ without"
        )
        assert int(re.search(r"\d+", times)[0]) > 10
        press(page, "#cache", "mouse")
        shows("#cache-note", "positions are kept")

    def test_a_window_that_moved_is_counted_apart(self, page, shows):
        open_again(page)
        page.click("#write-ten")
        page.click("#write-ten")
        page.locator("#drawn li >> nth=19").wait_for()
        shows("#run", "^run$")
        counts = page.locator("#costs tbody td:first-of-type").all_inner_texts()
        assert counts == ["19", "–", "1"]

    @BOTH
    def test_the_weights_of_another_moment_change_everything(self, page, shows, hand):
        places = ("#mean", "#bars", "#sentence", "#depth", "#before")
        before = [page.inner_text(place) for place in places]
        slide(page, "#snapshot", hand, 0)
        shows("#snapshot-is", r"^step 1, validation loss 3\.99$")
        after = [page.inner_text(place) for place in places]
        assert not any(map(operator.eq, before, after))


class TestOddRuns:
    @pytest.mark.parametrize("context, scale, loss", [(1, 1, 0.0), (8, 1, 1e38), (8, 1e30, 1e6)])
    def test_a_page_opens_whatever_its_run(self, browser, tmp_path, context, scale, loss):
        config = replace(CONFIG, max_len=context)
        write_config(tmp_path / "config.toml", RunConfig(model=config))
        weights = {name: scale * weight for name, weight in build(config).state_dict().items()}
        state = {"step": 9, "characters": CHARACTERS, "model": weights, "val_loss": loss}
        save_checkpoint(tmp_path / "best", state)
        record = json.dumps({"step": 3, "train_loss": 2.0})
        (tmp_path / "metrics.jsonl").write_text(record + "\n", encoding="utf-8")
        write_explorer(tmp_path, tmp_path / "page.html", "odd", lambda _: [LINE])
        page, wrong = browser.new_page(), []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_selector(READY, timeout=5000)
        assert page.input_value("#text") == LINE[:context] and not wrong
        overflows = "The model stopped: with these weights the numbers overflow"
        assert page.text_content("#trouble") == (overflows if scale > 1 else "")
        assert 1 <= page.locator(".curve .grid").count() <= 12
        assert "move" not in page.inner_text("#look-learned")
        page.close()


class TestForEveryone:
    def test_every_control_is_reached_by_the_tab_key_and_shows_that_it_is(self, page):
        page.click("#take-back", force=True)
        page.evaluate("document.activeElement.blur()")
        wanted = page.evaluate(
            f"""() => [...document.querySelectorAll("{CONTROLS}")].filter((node) =>
                node.tabIndex >= 0 && !node.disabled && node.offsetParent).length"""
        )
        reached = set()
        for _ in range(wanted + 3):
            page.keyboard.press("Tab")
            name, ring, tag = page.evaluate(
                """() => [[...document.querySelectorAll("*")].indexOf(document.activeElement),
                    getComputedStyle(document.activeElement).outlineStyle,
                    document.activeElement.tagName]"""
            )
            assert ring != "none" or tag == "BODY"
            reached.add(name)
        assert len(reached) >= wanted > 20

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_all_text_stands_out_from_what_is_behind_it(self, page, scheme):
        page.emulate_media(color_scheme=scheme)
        page.click("#step")
        page.click("#parts button >> nth=0")
        page.locator("#away-loss").filter(has_text="without").wait_for()
        assert page.evaluate(CONTRASTS) == []

    @pytest.mark.parametrize("width", [320, 390, 800])
    def test_nothing_is_wider_than_the_screen(self, page, width):
        page.set_viewport_size({"width": width, "height": 700})
        page.fill("#text", "a" * 60)
        page.locator("#count").filter(has_text="60").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == width

    def test_nothing_moves_for_those_who_asked_for_less_motion(self, page):
        moving = """() => [...document.querySelectorAll("*")].filter((node) =>
            getComputedStyle(node).transitionDuration !== "0s").length"""
        assert page.evaluate(moving) == 0
        page.emulate_media(reduced_motion="no-preference")
        assert page.evaluate(moving) > 0

    def test_maps_are_as_sharp_as_the_screen(self, browser, file):
        page = browser.new_page(device_scale_factor=3)
        page.goto(file.as_uri())
        page.wait_for_selector(READY)
        wide, shown = page.evaluate(
            """() => { const map = document.querySelector("#map-canvas");
                return [map.width, map.clientWidth]; }"""
        )
        assert wide == 3 * shown
        page.close()

    def test_every_panel_says_what_to_look_for_and_leads_to_where_that_is_built(self, page):
        for panel in page.locator("section").all():
            assert panel.locator(".look").inner_text().startswith("Look ")
            assert panel.locator(".built a").count() >= 1
        for link in page.locator("[data-module]").all():
            path, _, anchor = link.get_attribute("href").partition("/blob/main/")[2].partition("#")
            assert anchor in anchors_of(path)
            assert link.inner_text() == Path(path).parts[0]


@cache
def anchors_of(path: str) -> set[str | None]:
    markdown = MarkdownIt("gfm-like", {"linkify": False}).use(anchors_plugin, max_level=6)
    tokens = markdown.parse((ROOT / path).read_text(encoding="utf-8"))
    return {token.attrs.get("id") for token in tokens}


SHOWN = """[...document.querySelectorAll("section:not(#panel-cache)")]
    .map((panel) => panel.innerText).join()"""

# Puts everything back by the page's own controls, which takes less than to open it again, and says
# whether it then looks as it opened. What the drawn characters cost stays.
BACK_TO = """async ([opened, moved]) => {
    const tell = (id, value) => {
        const node = document.getElementById(id);
        node.value = value;
        for (const kind of ["input", "change"]) node.dispatchEvent(new Event(kind));
    };
    scrollTo(0, 0);
    document.activeElement.blur();
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    document.querySelector("#all-back").click();
    document.querySelector("#cache").checked = true;
    for (const id of ["temperature", "top-p", "seed"]) tell(id, 1);
    tell("top-k", 100);
    tell("text", ""); // so that nothing looks as it should before it is read
    tell("text", JSON.parse(document.querySelector("#data").textContent).examples[0]);
    for (let i = 0; i < 20; i++) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        for (const choice of moved) document.querySelector(choice)?.click();
        if (SHOWN === opened) return true;
    }
    return false;
}""".replace("SHOWN", SHOWN)

# The elements with text of their own whose color is too near to what is painted behind them.
CONTRASTS = """() => {
    const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const style = (node) => getComputedStyle(node);
    const behind = (node) =>
        node ? [...behind(node.parentElement), style(node).backgroundColor] : ["white"];
    const painted = (colors) => {
        for (const color of colors) {
            pen.fillStyle = color;
            pen.fillRect(0, 0, 1, 1);
        }
        return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) =>
        0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const shown = (node) => node.offsetParent && !node.disabled && node.tagName !== "TEXTAREA" &&
        [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    return [...document.querySelectorAll("body *")].filter(shown).filter((node) => {
        const both = [behind(node), [...behind(node), style(node).color]].map(painted).map(light);
        return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05) < 4.5;
    }).map((node) => node.outerHTML.slice(0, 120));
}"""
