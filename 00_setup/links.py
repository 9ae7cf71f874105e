"""Links with the modules' names in `.links/`, where editors look: README.md, "Your editor"."""

import os
import platform
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Make or mend the links; where that cannot be, say so and go on: Python does without them."""
    try:
        problem = make_links(ROOT)
    except Exception as error:  # whatever it is, the course works
        problem = f"{type(error).__name__}: {error}"
    if problem:
        print(f"Your editor may not follow every import; the course works all the same. {problem}")


def make_links(root: Path) -> str:
    """Let .links/tiny_transformer/attention lead to 01_attention, and so on, by pyproject.toml.

    A link that leads elsewhere is replaced; what is no link stays. Returns what was in the way.
    """
    import tomlkit  # late: a broken installation is for the checks to find

    pyproject = root / "pyproject.toml"
    if not pyproject.exists():  # installed without its folders
        return ""
    settings = tomlkit.parse(pyproject.read_text(encoding="utf-8")).unwrap()
    problem = ""
    for name, folder in settings["tool"]["setuptools"]["package-dir"].items():
        link, target = root.joinpath(".links", *name.split(".")), root / folder
        if name.count(".") > 1 or os.path.realpath(link) == os.path.realpath(target):
            continue  # a package in a package is there by the link to the outer one
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            if is_link(link):
                link.unlink()
            lead(link, target)
        except OSError as error:
            problem = problem or f"{link}: {error.strerror}"
    return problem


def is_link(path: Path) -> bool:
    try:
        os.readlink(path)  # reads a junction too, of which `is_symlink` knows nothing
    except (OSError, ValueError):
        return False
    return True


def lead(link: Path, target: Path) -> None:
    if platform.system() == "Windows":  # where a symbolic link takes an administrator
        import _winapi

        _winapi.CreateJunction(str(target), str(link))
    else:  # relative, so that the course can be moved
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)


if __name__ == "__main__":
    main()
