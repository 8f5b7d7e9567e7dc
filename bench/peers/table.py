"""Prints what run.sh timed as tables, and each target of the project as met or missed. Everything is computed from raw rows.

usage: table.py peers.jsonl lathe.json…      rows of peers.py and peer-candle; results of `lathe bench --json`
"""

import json
import statistics
import sys


def main():
    peers_file, *our_files = sys.argv[1:]
    ours = []
    for name in our_files:
        with open(name) as file:
            ours.append(json.load(file))
    with open(peers_file) as file:
        peers = [json.loads(line) for line in file if line.startswith("{")]
    rows = Rows(ours, peers)
    # The best that any of the runs saw, as a ceiling should be.
    best = {name: max(part["ceiling"][name] for part in ours) for name in ours[0]["ceiling"]}
    print(
        f"{ours[0]['threads']} threads, {ours[0]['instructions']}. Ceilings: {best['gflops']:.0f} GFLOP/s in f32, "
        f"{best['bf16_gflops']:.0f} in bf16, {best['int8_gops']:.0f} G/s in integers, {best['read_gbytes']:.1f} GB/s.\n"
    )
    for model in rows.models():
        print(f"### {model}\n")
        rows.print_speeds(model)
        rows.print_memory(model)
    print("### Methods\n")
    rows.print_methods()
    print("### Targets\n")
    print_targets(rows)


class Rows:
    """Seconds of every run by model, what was timed, and who; `who` of lathe is `lathe f32` and so on."""

    def __init__(self, ours, peers):
        self.seconds, self.tokens, self.memory, self.notes, self.beside = {}, {}, {}, [], {}
        self.step_memory = {}
        for part in ours:
            for model in part["models"]:
                name, who = model["model"], f"lathe {model['compute']}"
                # A process that has timed one thing and loaded for nothing else: `--training`.
                if len(model.get("methods", [])) == 1 and model["peak_memory"]:
                    self.step_memory[name, model["methods"][0]["what"], who] = model["peak_memory"]
                for row in model.get("methods", []):
                    self.add_method(name, who, row)
                # Where methods were timed, nothing else is looked at.
                if not model.get("methods"):
                    self.add(name, "loading", who, 0, [model["load_seconds"]])
                    self.memory[name, who] = model["peak_memory"]
                    for row in model["rows"]:
                        self.add(name, row["what"], who, row["tokens"], row["seconds"])
            for row in part.get("methods", []):
                self.add_method(None, "lathe f32", row)
        for row in peers:
            key = row.get("model"), row["who"]
            if row["what"] == "peak memory" and row.get("of"):
                self.step_memory[row.get("model"), row["of"], row["who"]] = row["bytes"]
            elif row["what"] == "peak memory":
                self.memory[key] = row["bytes"]
            elif "note" in row:
                self.notes.append((*key, row["what"], row["note"]))
            else:
                self.add(row.get("model"), row["what"], row["who"], row.get("tokens", 0), row["seconds"])

    def add(self, model, what, who, tokens, seconds):
        self.seconds[model, what, who] = seconds
        self.tokens[model, what] = tokens

    def add_method(self, model, who, row):
        if row.get("timing"):
            self.add(model, row["what"], who, row["tokens"], row["timing"]["seconds"])
        if row.get("beside"):
            self.beside[model, row["what"], who] = row["beside"]
        if row.get("note"):
            self.notes.append((model, who, row["what"], row["note"]))

    def models(self):
        return list(dict.fromkeys(model for model, _, _ in self.seconds if model))

    def median(self, model, what, who):
        """The median run of the first whose name begins with `who`; None where nothing was timed."""
        found = [s for (m, w, name), s in self.seconds.items() if (m, w) == (model, what) and name.startswith(who)]
        return statistics.median(found[0]) if found else None

    def whats(self, model, prefixes):
        found = dict.fromkeys(what for m, what, _ in self.seconds if m == model and what.startswith(prefixes))
        return list(found)

    def print_speeds(self, model):
        print("| what | who | tokens/s | slowest to fastest | lathe f32 is |\n|---|---|---:|---|---:|")
        for what in self.whats(model, ("reading", "writing", "training", "lora")):
            own, tokens = self.median(model, what, "lathe f32"), self.tokens[model, what]
            for (m, w, who), seconds in self.seconds.items():
                if (m, w) != (model, what):
                    continue
                middle = statistics.median(seconds)
                ratio = f"{middle / own:.2f}x" if own and who != "lathe f32" else ""
                low, high = tokens / max(seconds), tokens / min(seconds)
                print(f"| {what} | {who} | {number(tokens / middle)} | {number(low)} to {number(high)} | {ratio} |")
        print()

    def print_memory(self, model):
        print("| who | loading | peak memory |\n|---|---:|---:|")
        for (m, who), peak in self.memory.items():
            if m == model:
                loading = self.median(model, "loading", who)
                memory = f"{peak / 1e6:.0f} MB" if peak else "not known"
                print(f"| {who} | {'' if loading is None else f'{loading:.2f} s'} | {memory} |")
        for (m, what, who), peak in self.step_memory.items():
            if m == model:
                print(f"| {who}, {what} alone | | {peak / 1e6:.0f} MB |")
        print()

    def print_methods(self):
        print("| model | what | who | median | beside a forward pass |\n|---|---|---|---:|---|")
        for (model, what, who), seconds in self.seconds.items():
            if what == "loading" or what.startswith(("reading", "writing")):
                continue
            middle, beside = statistics.median(seconds), self.beside.get((model, what, who))
            text = f"{beside['share']:.2%} of {beside['what']} ({beside['comparison']})" if beside else ""
            print(f"| {model or '–'} | {what} | {who} | {number(1e3 * middle)} ms | {text} |")
        print()
        for model, who, what, note in self.notes:
            print(f"* {model or '–'}, {who}, {what}: {note}")
        if self.notes:
            print()


def print_targets(rows):
    print("| target | model | measured | needed | |\n|---|---|---:|---:|---|")

    def target(name, model, measured, needed, unit, holds):
        if measured is None:
            print(f"| {name} | {model} | – | {needed:g}{unit} | not measured |")
        else:
            print(f"| {name} | {model} | {measured:.3g}{unit} | {needed:g}{unit} | {'met' if holds else 'missed'} |")

    def at_least(name, model, measured, needed, unit="x"):
        target(name, model, measured, needed, unit, measured is not None and measured >= needed)

    def below(name, model, measured, needed, unit):
        target(name, model, measured, needed, unit, measured is not None and measured < needed)

    def most(name, model, measured, needed, unit):
        target(name, model, measured, needed, unit, measured is not None and measured <= needed)

    def faster(model, what, own, other):
        """How many times faster than the other."""
        own, other = rows.median(model, what, own), rows.median(model, what, other)
        return other / own if own and other else None

    def share(model, what, unit):
        beside = rows.beside.get((model, what, "lathe f32"))
        return unit * beside["share"] if beside else None

    first = lambda model, *prefixes: next(iter(rows.whats(model, prefixes)), "")
    for model in rows.models():
        read = next((w for w in rows.whats(model, ("reading",)) if w.endswith("logits of all")), "")
        at_least("1 reading, all logits, f32: transformers f32", model,
                 faster(model, read, "lathe f32", torch_in("f32", rows, model)), 2.2)
        at_least("1 reading, all logits, f32: llama.cpp", model, faster(model, read, "lathe f32", "llama.cpp"), 2.5)
        at_least("2 reading, all logits, bf16: transformers bf16", model,
                 faster(model, read, "lathe bf16", torch_in("bf16", rows, model)), 1.5)
        writes = rows.whats(model, ("writing",))
        one, many = (next((w for w in writes if w.endswith(f", {n} at once")), "") for n in (1, 16))
        for compute in ("lathe f32", "lathe native"):
            at_least(f"3 writing 1 at once, {compute}: llama.cpp", model, faster(model, one, compute, "llama.cpp"), 1.5)
            alone, together = rows.median(model, one, compute), rows.median(model, many, compute)
            gain = 16 * alone / together if alone and together else None
            at_least(f"3 writing 16 at once, {compute}: 1 at once", model, gain, 6)
        at_least("4 scoring: reading with logits of all", model,
                 share(model, first(model, "scoring"), 100), 85, " %")
        below("5 matrix nuclear norm of 512 tokens: a pass", model,
              share(model, first(model, "spectrum: matrix nuclear norm"), 100), 1, " %")
        below("5 matrix entropy of 512 tokens: a pass", model,
              share(model, first(model, "spectrum: matrix entropy"), 100), 5, " %")
        below("6 attention column sums of 2048 tokens: added to a pass", model,
              share(model, first(model, "attention column sums"), 100), 20, " %")
        if model == "smollm2":
            step = first(model, "training step")
            at_least("7 training step: torch", model, faster(model, step, "lathe f32", "transformers"), 1.3)
            lora = first(model, "lora step")
            own, whole = rows.median(model, lora, "lathe f32"), rows.median(model, step, "lathe f32")
            most("8 lora step: training step, time", model, own and whole and own / whole, 0.6, "x")
            own, whole = (rows.step_memory.get((model, what, "lathe f32")) for what in (lora, step))
            most("8 lora step: training step, memory", model, own and whole and own / whole, 0.5, "x")
            at_least("8 lora step: torch", model, faster(model, lora, "lathe f32", "transformers"), 1)
    norm = "matrix nuclear norm of 512 x 2048"
    own = rows.median(None, norm, "lathe")
    below("5 matrix nuclear norm of 512 x 2048", "–", own and 1e3 * own, 0.5, " ms")


def torch_in(name, rows, model):
    """The full name of transformers in f32 or bf16."""
    names = (who for m, _, who in rows.seconds if m == model and who.startswith("transformers") and who.endswith(name))
    return next(names, "none")


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
