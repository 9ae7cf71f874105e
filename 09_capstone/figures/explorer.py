"""Takes the README's pictures of the page: python 09_capstone/figures/explorer.py

It needs the development extras and the browser Chromium.
"""

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tiny_transformer.capstone.explore import write_explorer

PRETRAINED = Path(__file__).parents[1] / "pretrained"
LINE = "But, soft! what light through yonder window breaks?"
POSITION = 47  # the a of "breaks"

with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
    file = Path(folder, "explore.html")
    write_explorer(PRETRAINED, file, "The model in the box", lambda _: [LINE])
    browser = driver.chromium.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox", "--hide-scrollbars"]
    )
    for scheme in ("light", "dark"):
        page = browser.new_page(
            color_scheme=scheme, viewport={"width": 1000, "height": 1200}, device_scale_factor=1.5
        )
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        page.click(f"#looks-{POSITION}")
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        box = page.locator("#panel-attention .maps").bounding_box()
        end = page.locator("#looks").bounding_box()
        page.evaluate("document.querySelector('.where').style.display = 'none'")
        top = page.locator("#panel-attention .maps").evaluate(
            "maps => maps.getBoundingClientRect().top + scrollY"
        )
        picture = page.screenshot(
            full_page=True,
            clip={
                "x": box["x"] - 16,
                "y": top - 10,
                "width": box["width"] + 32,
                "height": end["y"] + end["height"] - box["y"] + 20,
            },
        )
        image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(kmeans=1, dither=0)
        image.save(Path(__file__).with_name(f"explorer-{scheme}.png"), optimize=True)
    browser.close()
