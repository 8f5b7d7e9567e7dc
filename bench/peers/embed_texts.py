"""Writes 2,000 English texts of the built-in sample as JSON lines.

    embed_texts.py KIND [COUNT] > texts.jsonl        KIND: words (one each), sentences (6 to 30 words), passages (60 to 200 words)
"""

import json, sys
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[2] / "crates/lab/sample"
FILES = ["prose/persuasion.txt", "prose/pride_and_prejudice.txt", "legal/us_constitution.txt", "legal/declaration_of_independence.txt"]
LENGTHS = {"words": (1, 1), "sentences": (6, 25), "passages": (60, 141)}  # the least, and how many there are

least, spread = LENGTHS[sys.argv[1]]
words = " ".join((SAMPLE / file).read_text() for file in FILES).split()
for i in range(int(sys.argv[2]) if len(sys.argv) > 2 else 2000):
    first, count = i * 379 % (len(words) - 200), least + i * 7 % spread
    print(json.dumps({"text": " ".join(words[first : first + count])}, ensure_ascii=False))
