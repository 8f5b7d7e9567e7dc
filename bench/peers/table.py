"""Prints one table of what `lathe bench --json` and peers.py timed: the median run, tokens a second.

usage: table.py lathe.json peers.jsonl
"""

import json
import statistics
import sys


def main():
    with open(sys.argv[1]) as file:
        ours = json.load(file)
    rows = [("lathe", row["what"], row["tokens"], row["seconds"]) for row in ours["models"][0]["rows"]]
    with open(sys.argv[2]) as file:
        peers = [json.loads(line) for line in file if line.startswith("{")]
    # Peers are timed with the short prompt before what they write; where its time is known alone, it is taken off.
    start = {row["who"]: statistics.median(row["seconds"]) for row in peers if row["what"] == "reading 16 tokens"}
    for row in peers:
        if row["what"] == "reading 16 tokens":
            continue
        less = start.get(row["who"], 0.0) if row["what"].endswith("prompt included") else 0.0
        what = row["what"].removesuffix(", prompt included") if less else row["what"]
        rows.append((row["who"], what, row["tokens"], [s - less for s in row["seconds"]]))
    print("| what | who | tokens/s | slowest to fastest |\n|---|---|---|---|")
    for who, what, tokens, seconds in sorted(rows, key=lambda row: (row[1].removesuffix(", prompt included"), row[0])):
        rate = tokens / statistics.median(seconds)
        print(f"| {what} | {who} | {rate:.0f} | {tokens / max(seconds):.0f} to {tokens / min(seconds):.0f} |")


if __name__ == "__main__":
    main()
