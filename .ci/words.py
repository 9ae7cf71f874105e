"""Prints how many words each theory.md has, its code and formulas aside; 2,000 to 3,500 pass."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NO_WORDS = re.compile(r"```.*?```|\$\$.*?\$\$|<[^>]+>", re.DOTALL)
counts = {
    page.parent.name: len(NO_WORDS.sub(" ", page.read_text(encoding="utf-8")).split())
    for page in sorted(ROOT.glob("0*_*/theory.md"))
}
for folder, count in counts.items():
    print(f"{folder:22} {count:5} words")
sys.exit(not all(2000 <= count <= 3500 for count in counts.values()))
