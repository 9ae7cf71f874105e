"""Records the pictures of a learner's terminal: python 00_setup/figures/terminal.py

It needs the development extras and tmux.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tiny_transformer.setup.grading.reset import stubs_of
from tiny_transformer.setup.links import make_links

ROOT = Path(__file__).parents[2]
MODULE = "01_attention"
STUB = "    raise NotImplementedError\n"
WRONG = "    return scores.exp() / scores.exp().sum(dim, keepdim=True)\n"
RIGHT = """\
    powers = (scores - scores.amax(dim, keepdim=True)).exp()
    return powers / powers.sum(dim, keepdim=True)
"""
TMUX = ("tmux", "-L", f"terminal-{os.getpid()}")
SHADES = {  # ground, text, gray, green
    "light": ("#ffffff", "#1f2328", "#767c86", "#1a7f37"),
    "dark": ("#0d1117", "#e6edf3", "#767c86", "#3fb950"),
}
COLUMNS = 80
WIDTH, HEIGHT = 12.2, 24.4  # of a character of 20 pixels, in what rich writes
FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg"
  width="{width}" height="{height}" viewBox="-20 -16 {width} {height}">
<style>
text {{{{ font: 20px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace }}}}
{{styles}}
</style>
<rect x="-19" y="-15" width="{inner_width}" height="{inner_height}" rx="10"
  fill="{ground}" stroke="{gray}"/>
<g class="{{unique_id}}-matrix">
{{matrix}}
</g>
</svg>
"""


def tmux(*arguments: str) -> str:
    return subprocess.check_output([*TMUX, *arguments], encoding="utf-8")


def screen(wanted: str) -> list[str]:
    """The lines of the terminal, with their colors, once these words are among them."""
    end = time.monotonic() + 120
    while wanted not in (text := tmux("capture-pane", "-pe")):
        assert time.monotonic() < end, text
        time.sleep(0.1)
    return text.rstrip().splitlines()


with tempfile.TemporaryDirectory() as folder:
    course = Path(folder)
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, encoding="utf-8")
    for name in filter(None, listed.split("\0")):
        (course / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, course / name)
    make_links(course)
    exercises = course / MODULE / "exercises.py"
    stubs = stubs_of(course, MODULE).read_text(encoding="utf-8")
    exercises.write_text(stubs.replace(STUB, WRONG, 1), encoding="utf-8")
    os.environ["PYTHONPATH"] = str(course / ".links")
    command = f"{sys.executable} -m tiny_transformer.capstone learn {MODULE}"
    tmux("new-session", "-d", "-x", str(COLUMNS), "-y", "24", "-c", folder, command)
    try:
        before = screen("In the test")
        exercises.write_text(stubs.replace(STUB, RIGHT, 1), encoding="utf-8")
        after = screen("solved")
    finally:
        tmux("kill-server")

lines = [*before, "", f"\033[90m{' you save the file ':─^{COLUMNS}}\033[m", "", *after]
width, height = COLUMNS * WIDTH + 40, len(lines) * HEIGHT + 32
for name, (ground, text, gray, green) in SHADES.items():
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(Text.from_ansi(line))
    rgb = [tuple(bytes.fromhex(color[1:])) for color in (ground, text, gray, green)]
    theme = TerminalTheme(rgb[0], rgb[1], [*rgb[1:3], rgb[3], *5 * rgb[1:2]], 8 * rgb[2:3])
    frame = FORMAT.format(
        width=width,
        height=height,
        inner_width=width - 2,
        inner_height=height - 2,
        ground=ground,
        gray=gray,
    )
    picture = Path(__file__).with_name(f"terminal-{name}.svg")
    console.save_svg(str(picture), theme=theme, code_format=frame, unique_id="t")
