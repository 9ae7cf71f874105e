"""Prepares tiny Shakespeare and says what came of it: `python -m tiny_transformer.data`."""

import sys

from tiny_transformer.data.corpus import SHA256, CorpusError, find_or_make, load_text

try:
    path, road = find_or_make()
    text = load_text(path)
except CorpusError as error:
    sys.exit(str(error))
print(f"path    {path}")
print(f"size    {path.stat().st_size:,} bytes, {len(text):,} characters, {len(set(text))} distinct")
print(f"sha256  {SHA256} (verified)")
print(f"road    {road}")
