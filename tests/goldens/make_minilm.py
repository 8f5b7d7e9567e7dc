"""Writes minilm.json: tokens and vectors of a few texts, as sentence-transformers (6.2, torch 2.15, f32) computes them.

    make_minilm.py FOLDER > minilm.json        FOLDER: where `lathe fetch minilm` has put the model

This is a tool for development. The test reads what it wrote and never runs it.
"""

import json, sys

from sentence_transformers import SentenceTransformer

TEXTS = [
    "A man is playing a guitar.",
    "Someone plays an instrument, and nobody listens!",
    "",
    "Zürich's 1984 budget: CHF 3.7bn — “naïve”, said the mayor… 東京も。",
    "The committee met on Tuesday. " * 60,
]

model = SentenceTransformer(sys.argv[1], device="cpu")
ids = [[int(i) for i in model.tokenizer(text, truncation=True, max_length=256)["input_ids"]] for text in TEXTS]
vectors = [[round(float(x), 8) for x in model.encode(text)] for text in TEXTS]
json.dump(dict(texts=TEXTS, ids=ids, vectors=vectors), sys.stdout, ensure_ascii=False)
print()
