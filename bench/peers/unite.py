"""Times the union-of-top-k loop of two models in transformers, greedy, for `bench/peers/run-unite.sh`.

usage: unite.py FIRST SECOND [--cache both|first] [--tokens 48] [--k 10] [--runs 3] [--threads 2]

FIRST, SECOND: folders of `lathe export MODEL --to safetensors --dtype f32`. `--cache both` keeps keys and values of both models
and reads only what changed; `first` keeps those of the first model and runs the second one over the whole text at every step, as
the released code of UniTE does for two models. Written from the definition (arXiv 2410.03777, section 4): softmax over the union of
both top k, strings that are no token scored by their first token, mean, argmax.

Prints one JSON line: seconds of every run after one that does not count, and the text.
"""

import argparse
import json
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

PROMPT = "The history of the town begins with"


class Member:
    def __init__(self, folder, keeps):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.keeps = keeps
        self.strings = {}
        for token in range(len(self.tokenizer)):
            self.strings.setdefault(self.tokenizer.decode([token]), token)
        self.begin()

    def begin(self):
        self.cache, self.read = DynamicCache(), []

    def logits(self, text):
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not self.keeps:
            return self.model(torch.tensor([ids])).logits[0, -1]
        same = 0
        while same < min(len(self.read), len(ids) - 1) and self.read[same] == ids[same]:
            same += 1
        if same < len(self.read):
            self.cache.crop(same - len(self.read))
        out = self.model(torch.tensor([ids[same:]]), past_key_values=self.cache, use_cache=True)
        self.read = ids
        return out.logits[0, -1]

    def top(self, logits, k):
        return [self.tokenizer.decode([token]) for token in torch.topk(logits, k).indices.tolist()]

    def scores(self, logits, union):
        taken, scores = set(), []
        for string in union:
            token = self.strings.get(string)
            if token is None:
                ids = self.tokenizer(string, add_special_tokens=False)["input_ids"]
                token = ids[0] if ids else None
                if token is None or token in taken or self.tokenizer.decode([token]) in union:
                    scores.append(float("-inf"))
                    continue
            taken.add(token)
            scores.append(logits[token].item())
        return torch.softmax(torch.tensor(scores, dtype=torch.float64), 0)


@torch.no_grad()
def write(members, tokens, k):
    text = PROMPT
    for member in members:
        member.begin()
    for _ in range(tokens):
        rows = [member.logits(text) for member in members]
        union = list(dict.fromkeys(s for member, row in zip(members, rows) for s in member.top(row, k)))
        p = sum(member.scores(row, union) for member, row in zip(members, rows)) / len(members)
        text += union[int(p.argmax())]
    return text[len(PROMPT):]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--cache", choices=["both", "first"], default="both")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    members = [Member(args.first, True), Member(args.second, args.cache == "both")]
    seconds, text = [], ""
    for run in range(args.runs + 1):
        started = time.perf_counter()
        text = write(members, args.tokens, args.k)
        if run > 0:
            seconds.append(time.perf_counter() - started)
    who = f"transformers, f32, keys and values of {'both models' if args.cache == 'both' else 'the first model'} kept"
    print(json.dumps({"who": who, "tokens": args.tokens, "seconds": seconds, "text": text}))


main()
