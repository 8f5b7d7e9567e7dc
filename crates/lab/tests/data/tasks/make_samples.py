"""Writes small made-up files with the columns of ARC, HellaSwag, WinoGrande, GSM8K and TriviaQA, as JSON lines and as Parquet.

    python3 crates/lab/tests/data/tasks/make_samples.py        (pyarrow 26; the tests need neither)
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent


def lines(name, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (HERE / f"{name}.jsonl").write_text(text, encoding="utf-8")


def both(name, rows):
    lines(name, rows)
    pq.write_table(pa.Table.from_pylist(rows), HERE / f"{name}.parquet", compression="snappy")


arc = [
    ("s1", "Which of these is a source of light?", ["the Sun", "a mirror", "a stone"], ["A", "B", "C"], "A"),
    ("s2", "What does a thermometer measure?", ["mass", "length", "time", "temperature"], ["1", "2", "3", "4"], "4"),
    ("s3", "Ice that warms up becomes", ["steel", "water"], ["A", "B"], "B"),
]
both("arc", [{"id": i, "question": q, "choices": {"text": t, "label": a}, "answerKey": k} for i, q, t, a, k in arc])
# As the authors of ARC publish it.
lines(
    "arc_original",
    [
        {
            "id": i,
            "question": {"stem": q, "choices": [{"text": x, "label": y} for x, y in zip(t, a)]},
            "answerKey": k,
        }
        for i, q, t, a, k in arc
    ],
)

both(
    "hellaswag",
    [
        {
            "ind": 4,
            "activity_label": "Baking bread",
            "ctx_a": "A woman kneads dough on a table.",
            "ctx_b": "the DOUGH",
            "ctx": "A woman kneads dough on a table. the DOUGH",
            "endings": ["flies away.", "is put into the oven.", "sings a song.", "turns  into a cat."],
            "source_id": "made~up",
            "split": "val",
            "split_type": "indomain",
            "label": "1",
        },
        {
            "ind": 9,
            "activity_label": "Home and Garden",
            "ctx_a": "[header] How to water a plant [title] Find out what it needs.",
            "ctx_b": "",
            "ctx": "[header] How to water a plant [title] Find out what it needs.",
            "endings": [
                "[step] Touch the soil. [substeps] Dry soil needs water.",
                "[step] Paint the pot. [substeps] Paint is wet.",
                "Ask a neighbour [title] Leave the house.",
                "Throw the plant away.",
            ],
            "source_id": "made~up",
            "split": "val",
            "split_type": "zeroshot",
            "label": "0",
        },
        {
            "ind": 12,
            "activity_label": "Test",
            "ctx_a": "A row of a test set.",
            "ctx_b": "it",
            "ctx": "A row of a test set. it",
            "endings": ["a", "b", "c", "d"],
            "source_id": "made~up",
            "split": "test",
            "split_type": "zeroshot",
            "label": "",
        },
    ],
)

both(
    "winogrande",
    [
        {
            "sentence": "The suitcase did not fit into the car because _ was too big.",
            "option1": "the suitcase",
            "option2": "the car",
            "answer": "1",
        },
        {
            "sentence": "Ann thanked Eva, because _ had helped her.",
            "option1": "Ann",
            "option2": "Eva",
            "answer": "2",
        },
        {"sentence": "The test set asks _ too.", "option1": "this", "option2": "that", "answer": ""},
    ],
)

both(
    "gsm8k",
    [
        {
            "question": "Tom has 3 boxes of 1,000 screws. He uses 250. How many are left?",
            "answer": "He has 3 * 1,000 = <<3*1000=3000>>3,000 screws.\n3,000 - 250 = <<3000-250=2750>>2,750\n#### 2,750",
        },
        {
            "question": "It is 4 degrees. It gets 9 degrees colder. How cold is it then? ",
            "answer": "4 - 9 = <<4-9=-5>>-5\n#### -5",
        },
    ],
)

both(
    "triviaqa",
    [
        {
            "question": "Which river flows through Vienna?",
            "question_id": "made_1",
            "question_source": "made up",
            "entity_pages": {"doc_source": ["x"], "filename": ["x.txt"]},
            "search_results": {"description": ["d"], "rank": [1]},
            "answer": {
                "aliases": ["Danube", "The Danube", "Donau"],
                "normalized_aliases": ["danube", "donau"],
                "matched_wiki_entity_name": "",
                "normalized_matched_wiki_entity_name": "",
                "normalized_value": "danube",
                "type": "WikipediaEntity",
                "value": "Danube",
            },
        },
        {
            "question": "How many sides does a hexagon have?",
            "question_id": "made_2",
            "question_source": "made up",
            "entity_pages": {"doc_source": [], "filename": []},
            "search_results": {"description": [], "rank": []},
            "answer": {
                "aliases": ["Six", "6"],
                "normalized_aliases": ["six", "6"],
                "matched_wiki_entity_name": "",
                "normalized_matched_wiki_entity_name": "",
                "normalized_value": "six",
                "type": "Numerical",
                "value": "Six",
            },
        },
    ],
)
