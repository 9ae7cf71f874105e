"""Build the course as a website: python .ci/site/build.py [FOLDER], by default site/.

The pages are those of the course as they are. They are gathered into a folder that goes again, so
that none of them exists twice, and Sphinx makes the site of them.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tomlkit

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDERS = sorted(ROOT.glob("0*_*"))
FRONT = ROOT / "README.md"
PAGES = {FRONT, *(folder / name for folder in FOLDERS for name in ("theory.md", "notebook.ipynb"))}
BOX = "The model in the box"
PICTURES = {".svg", ".png"}
SETTINGS = tomlkit.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REPOSITORY = SETTINGS["project"]["urls"]["Repository"]


def build(out: Path) -> None:
    """Make the site in `out`, in place of one that is there."""
    if out.exists() and not (out / ".buildinfo").exists():
        raise SystemExit(f"{out} is no site that was built here; it stays as it is")
    with tempfile.TemporaryDirectory() as temporary:
        box, pages, trees, site = (
            Path(temporary, name) for name in (BOX, "pages", "trees", "site")
        )
        gather(pages)
        with explorer(box, site / "explore.html") as model:
            sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", HERE]
            subprocess.run([*sphinx, "-d", trees, pages, site], check=True)
        if model.returncode:
            raise SystemExit("the page of the model was not written")
        framed(site / "explore.html")
        copy_pictures(site)  # for <picture>, of which Sphinx knows nothing
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(site, out)


def explorer(run: Path, out: Path) -> subprocess.Popen:
    """Begin to write the page of the model in the box, without the moments of its training."""
    shutil.copytree(
        ROOT / "09_capstone" / "pretrained", run, ignore=shutil.ignore_patterns("snapshots")
    )
    command = [sys.executable, "-m", "tiny_transformer.capstone", "explore", "--no-open"]
    return subprocess.Popen([*command, "--run", run, "--out", out], stdout=subprocess.DEVNULL)


def framed(page: Path) -> None:
    """Let the links of the page open in place of the site, not in the frame within it."""
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("<title>", '<base target="_top"><title>', 1), encoding="utf-8")


def gather(pages: Path) -> None:
    """Lay the pages where Sphinx finds them, with the links that only a site needs."""
    live = (HERE / "live.md").read_text(encoding="utf-8").replace("REPOSITORY", REPOSITORY)
    front = FRONT.read_text(encoding="utf-8").replace("\n## ", f"\n{live}\n## ", 1)
    modules = [f"{folder.name}/theory" for folder in FOLDERS]
    copy_pictures(pages)
    write(pages / "index.md", linked(front, ROOT) + toctree(modules))
    for folder in FOLDERS:
        theory = (folder / "theory.md").read_text(encoding="utf-8")
        text = linked(with_parts(theory, folder), folder) + toctree(["Notebook <notebook>"])
        write(pages / folder.name / "theory.md", text)
        notebook = json.loads((folder / "notebook.ipynb").read_text(encoding="utf-8"))
        prepare(notebook, folder)
        write(pages / folder.name / "notebook.ipynb", json.dumps(notebook))


def copy_pictures(to: Path) -> None:
    for file in ROOT.glob("0*_*/**/*"):
        if file.suffix in PICTURES:
            target = to / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def prepare(notebook: dict, folder: Path) -> None:
    """Fold the answers of an executed notebook, and give its pictures their words."""
    first = notebook["cells"][0]
    first["source"] = with_parts("".join(first["source"]), folder)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = linked("".join(cell["source"]), folder)
        if cell["metadata"].get("jupyter", {}).get("outputs_hidden"):
            cell["metadata"]["tags"] = ["hide-output"]
            cell["outputs"] = [o for o in cell["outputs"] if not announces(o)]
        join_streams(cell.get("outputs", []))
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                about = {"alt": output["metadata"]["image/png"]["alt"]}
                cell["metadata"]["mystnb"] = {"image": about}  # of the cell: it has one picture


def announces(output: dict) -> bool:
    """Whether it only says what the site does not need: that it is folded, or could be run."""
    said = "".join(output.get("data", {}).get("text/plain", ""))
    return said in ("The answer:", "run this cell to move the slider")


def join_streams(outputs: list[dict]) -> None:
    """Make one output of what was printed in a row: where it was cut is chance."""
    for i in reversed(range(1, len(outputs))):
        before, after = outputs[i - 1], outputs[i]
        if before["output_type"] == after["output_type"] == "stream":
            before["text"] = [*before["text"], *outputs.pop(i)["text"]]


def with_parts(text: str, folder: Path) -> str:
    """The page with a row of links below its title, to all that belongs to its module."""
    parts = ["theory.md", "notebook.ipynb", "exercises.py", "reference.py"]
    title, rest = text.split("\n", 1)
    row = " · ".join(f"[{name}]({name})" for name in parts)
    return f"{title}\n\n{{.parts}}\n{row}\n{rest}"


def linked(text: str, folder: Path) -> str:
    """The text with links to what is no page, code and folders, leading to the repository."""

    def target(match: re.Match) -> str:
        path, mark, anchor = match[1].partition("#")
        file = (folder / path).resolve()
        if file == FRONT:
            return f"](/index.md{mark}{anchor})"
        if not path or not file.exists() or file in PAGES or file.suffix in PICTURES:
            return match[0]
        kind = "tree" if file.is_dir() else "blob"
        return f"]({REPOSITORY}/{kind}/main/{file.relative_to(ROOT).as_posix()}{mark}{anchor})"

    text = re.sub(r"!\[([^]]*)\]\(https:.*?\)", r"\1", text)  # a badge would be asked for elsewhere
    return re.sub(r"\]\(([^)\s]+?)\)", target, text)


def toctree(pages: list[str]) -> str:
    return "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1] if sys.argv[1:] else ROOT / "site").resolve())
