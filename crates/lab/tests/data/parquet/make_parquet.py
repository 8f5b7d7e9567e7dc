"""Writes the Parquet files beside it, and what is in them as JSON lines, with pyarrow 26 (not a dependency of the tests).

    python3 crates/lab/tests/data/parquet/make_parquet.py
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent


def write(name, table, **settings):
    pq.write_table(table, HERE / f"{name}.parquet", **settings)


def lines(name, table):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
    (HERE / f"{name}.jsonl").write_text(text, encoding="utf-8")


# Every type that is read, with nulls among them, more values than a packed group holds, and repetitions.
count = 41
flat = pa.table(
    {
        "flag": pa.array([None if i % 7 == 3 else i % 3 == 0 for i in range(count)], pa.bool_()),
        "small": pa.array([i - 20 for i in range(count)], pa.int8()),
        "int": pa.array([None if i == 5 else (-1) ** i * i * 50_000_000 for i in range(count)], pa.int32()),
        "long": pa.array([(i - 20) * 10**17 for i in range(count)], pa.int64()),
        "unsigned": pa.array([2**32 - 1 - i for i in range(count)], pa.uint32()),
        "unsigned_long": pa.array([2**64 - 1 - i for i in range(count)], pa.uint64()),
        "float": pa.array([i / 8 for i in range(count)], pa.float32()),
        "double": pa.array([None if i % 5 == 0 else i / 3 for i in range(count)], pa.float64()),
        "text": pa.array([None if i % 11 == 10 else f"Frage {i}: Größe 🙂" * (i % 4) for i in range(count)]),
        "split": pa.array(["validation"] * count),
        "nothing": pa.array([None] * count, pa.string()),
    }
)
lines("flat", flat)
write("flat_snappy", flat, compression="snappy")
write("flat_gzip", flat, compression="gzip", data_page_version="2.0", row_group_size=17)
write("flat_plain", flat, compression="none", use_dictionary=False, row_group_size=10)
write(
    "flat_delta",
    flat,
    compression="snappy",
    use_dictionary=False,
    data_page_version="2.0",
    column_encoding={
        "small": "DELTA_BINARY_PACKED",
        "int": "DELTA_BINARY_PACKED",
        "long": "DELTA_BINARY_PACKED",
        "unsigned": "DELTA_BINARY_PACKED",
        "unsigned_long": "DELTA_BINARY_PACKED",
        "flag": "RLE",
        "text": "DELTA_BYTE_ARRAY",
        "split": "DELTA_LENGTH_BYTE_ARRAY",
        "nothing": "DELTA_LENGTH_BYTE_ARRAY",
    },
)
# Pages of a few values, with dictionaries that overflow in the middle of a column.
write("flat_pages", flat, compression="snappy", write_batch_size=4, data_page_size=32, dictionary_pagesize_limit=64)

# The nested columns of ARC and TriviaQA, and everything that may be missing in one.
choices = pa.struct([("text", pa.list_(pa.string())), ("label", pa.list_(pa.string()))])
answer = pa.struct([("aliases", pa.list_(pa.string())), ("value", pa.string()), ("rank", pa.int32())])
nested = pa.table(
    {
        "id": pa.array(["a", "b", "c", "d", "e", "f"]),
        "choices": pa.array(
            [
                {"text": ["sun", "moon"], "label": ["A", "B"]},
                {"text": [], "label": []},
                {"text": None, "label": ["1"]},
                None,
                {"text": [None, "x", ""], "label": ["A", "B", "C"]},
                {"text": ["only"], "label": None},
            ],
            choices,
        ),
        "answer": pa.array(
            [
                {"aliases": ["Sunset Blvd", "Sunset Boulevard"], "value": "Sunset", "rank": 1},
                {"aliases": ["one"], "value": None, "rank": None},
                None,
                {"aliases": [], "value": "v", "rank": -3},
                {"aliases": None, "value": "", "rank": 0},
                {"aliases": ["x"] * 20, "value": "many", "rank": 2},
            ],
            answer,
        ),
        "deep": pa.array(
            [[[1, 2], [3]], [], [[]], None, [None, [4, None]], [[5], [], [6]]],
            pa.list_(pa.list_(pa.int64())),
        ),
        "rows": pa.array(
            [
                [{"n": 1, "tags": ["a"]}, {"n": 2, "tags": []}],
                [],
                None,
                [{"n": None, "tags": None}],
                [None, {"n": 3, "tags": ["b", "c"]}],
                [{"n": 4, "tags": [None]}],
            ],
            pa.list_(pa.struct([("n", pa.int64()), ("tags", pa.list_(pa.string()))])),
        ),
        "label": pa.array([0, 1, 2, 3, 4, 5], pa.int64()),
    }
)
lines("nested", nested)
write("nested_snappy", nested, compression="snappy")
write("nested_gzip", nested, compression="gzip", data_page_version="2.0", row_group_size=4)
write("nested_old", nested, compression="none", use_compliant_nested_type=False, use_dictionary=False)
write("nested_pages", nested, compression="snappy", write_batch_size=2, data_page_size=8)

# What is refused: a type without a form in JSON, and packing that would need C code.
few = flat.select(["split"])
write("zstd", few, compression="zstd")
write("decimal", pa.table({"price": pa.array([1], pa.decimal128(5, 2))}))
write("binary", pa.table({"image": pa.array([b"\xff\xd8\xff"], pa.binary())}))
write("not_a_number", pa.table({"score": pa.array([float("nan")], pa.float64())}))
