"""How Sphinx makes the site; `build.py` gathers the pages for it."""

import html
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

NPM = Path(__file__).parent / "node_modules"

project = html_title = "Tiny Transformer"
extensions = ["myst_nb", "sphinxcontrib.katex"]
# What npm brings and no page asks for.
exclude_patterns = [
    "**/contrib",
    "**/*.mjs",
    "**/*.ttf",
    "**/*.woff",
    "**/katex.js",
    "**/README.md",
]

myst_enable_extensions = ["attrs_block", "dollarmath"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 6
nb_execution_mode = "off"
nb_code_prompt_show = "Show the answer"
nb_code_prompt_hide = "Hide the answer"
nb_ipywidgets_js = {}
katex_css_path = "katex.min.css"

html_theme = "furo"
html_copy_source = html_use_index = False
html_show_copyright = False
html_static_path = [
    "static",
    str(NPM / "katex" / "dist"),
    str(NPM / "@mermaid-js" / "tiny" / "dist"),
]
html_css_files = ["site.css"]
html_favicon = "static/icon.svg"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


class Mermaid(SphinxDirective):
    """A diagram in its own words, which `diagrams.js` draws."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = html.escape("\n".join(self.content))
        return [nodes.raw("", f'<pre class="mermaid">{text}</pre>', format="html")]


def finish(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    """Let the keyboard scroll long lines of code, and draw diagrams where there are some."""
    context["body"] = context.get("body", "").replace("<pre>", '<pre tabindex="0">')
    if page == "search":
        app.add_js_file("search.js", loading_method="defer")
    if "<picture>" in context["body"]:
        app.add_js_file("pictures.js", loading_method="defer")
    if 'class="mermaid"' in context["body"]:
        app.add_js_file("mermaid.tiny.js", loading_method="defer")
        app.add_js_file("diagrams.js", loading_method="defer")


def setup(app: Sphinx) -> None:
    app.add_directive("mermaid", Mermaid)
    app.connect("html-page-context", finish)
