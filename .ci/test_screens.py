"""Every page in JupyterLab's preview, where the course says to read it, and as wide as a phone."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TOKEN = "a-token-for-a-test"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("0*_*/theory.md"))]
# Of a phone's 390 px GitHub leaves 358, and breaks a word that is longer.
OPEN = """async path => {
    const preview = {path, factory: "Markdown Preview"};
    const widget = await jupyterapp.commands.execute("docmanager:open", preview);
    await widget.content.ready;
    window.shown = widget.node.querySelector(".jp-RenderedMarkdown");
    shown.style.cssText = "width: 358px; padding: 0; overflow-wrap: break-word";
    shown.querySelectorAll("details").forEach(folded => folded.open = true);
}"""
COUNT = "selector => shown.querySelectorAll(selector).length"
PROSE = """() => {
    const copy = shown.cloneNode(true);
    copy.querySelectorAll("pre, code, mjx-container").forEach(element => element.remove());
    return copy.textContent;
}"""
TOO_WIDE = """() => {
    const { left, right } = shown.getBoundingClientRect();
    const may = "pre, pre *, code, mjx-assistive-mml, mjx-assistive-mml *";
    const wide = [...shown.querySelectorAll(`:not(${may})`)].filter(element => {
        const box = element.getBoundingClientRect();
        return box.width && (box.left < left - 1 || box.right > right + 1);
    });
    return wide.map(element => element.outerHTML.slice(0, 200));
}"""
DIAGRAM_WIDTHS = """() => [...shown.querySelectorAll(".jp-RenderedMermaid img")].map(
    image => Number(decodeURIComponent(image.src).match(/viewBox="\\S+ \\S+ (\\S+)/)[1])
)"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of a JupyterLab of its own, which reads and leaves no one's settings."""
    home = tmp_path_factory.mktemp("jupyter")
    kinds = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    kinds += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={ROOT}"]
    command += [f"--IdentityProvider.token={TOKEN}", "--expose-app-in-browser"]
    command += [f"--AsyncFileCheckpoints.checkpoint_dir={home}"]
    places = {name: str(home) for name in kinds}
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **places}, stdout=log, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", port)) == 0:
                break
        told = (home / "log").read_text(encoding="utf-8")
        assert process.poll() is None and time.monotonic() < deadline, told
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/lab?token={TOKEN}"
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def lab(browser, server) -> Any:
    """JupyterLab in a browser, opened once for all pages."""
    tab = browser.new_page(viewport={"width": 1000, "height": 900})
    tab.goto(server)
    tab.wait_for_function("window.jupyterapp && jupyterapp.restored.then(() => true)")
    return tab


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request, lab) -> Path:
    """The page that the tab shows, as `window.shown`."""
    lab.evaluate(OPEN, request.param.relative_to(ROOT).as_posix())
    return request.param


def test_formulas_and_diagrams_are_drawn(lab, page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"\$\$|\\[a-z]+", lab.evaluate(PROSE))
    assert not lab.evaluate(COUNT, "mjx-merror, [mathcolor=red]")
    assert lab.evaluate(COUNT, "mjx-container[display=true]") == text.count("\n$$\n") / 2
    assert len(lab.evaluate(DIAGRAM_WIDTHS)) == text.count("```mermaid")


def test_nothing_but_code_is_wider_than_a_phone(lab, page):
    assert not lab.evaluate(TOO_WIDE)


def test_a_diagram_can_be_read_on_a_phone(lab, page):
    widths = lab.evaluate(DIAGRAM_WIDTHS)
    assert not [width for width in widths if 16 * 358 / width < 9.5], "letters of 16 px shrink"
