"""Times llama.cpp (llama-cpp-python) and transformers on a model, in the way of `lathe bench`.

usage: peers.py MODEL.gguf FOLDER [--prompt 512] [--decode 64] [--runs 5] [--threads 2]

MODEL.gguf is the file that lathe reads too; FOLDER is `lathe export MODEL --to safetensors --dtype f32` of it. Prints one
JSON line for each thing timed: the seconds of every run, after one that does not count.
"""

import argparse
import json
import time

PROMPT_BEFORE_DECODING = 16


def timed(who, what, tokens, runs, run):
    seconds = []
    for i in range(runs + 1):
        started = time.perf_counter()
        run()
        if i > 0:
            seconds.append(time.perf_counter() - started)
    print(json.dumps({"who": who, "what": what, "tokens": tokens, "seconds": seconds}), flush=True)


def ids(count, vocabulary):
    return [i * 7919 % vocabulary for i in range(count)]


def llama_cpp(args):
    import llama_cpp

    for every in (True, False):
        model = llama_cpp.Llama(
            args.gguf, n_ctx=2048, n_batch=2048, n_ubatch=512, logits_all=every, verbose=False,
            n_threads=args.threads, n_threads_batch=args.threads,
        )
        prompt = ids(args.prompt, model.n_vocab())

        def read():
            model.reset()
            model.eval(prompt)

        def write():
            model.reset()
            model.eval(prompt[:PROMPT_BEFORE_DECODING])
            for token in ids(args.decode, model.n_vocab()):
                model.eval([token])

        def start():
            model.reset()
            model.eval(prompt[:PROMPT_BEFORE_DECODING])

        who = f"llama.cpp (llama-cpp-python {llama_cpp.__version__})"
        which = "all" if every else "the last"
        timed(who, f"reading {args.prompt} tokens, logits of {which}", args.prompt, args.runs, read)
        if not every:
            # The prompt before the first written token is a few per cent of the time; it is timed alone and shown.
            timed(who, f"reading {PROMPT_BEFORE_DECODING} tokens", PROMPT_BEFORE_DECODING, args.runs, start)
            timed(who, f"writing {args.decode} tokens, 1 at once, prompt included", args.decode, args.runs, write)
        del model


def transformers(args):
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        model = transformers.AutoModelForCausalLM.from_pretrained(args.folder, dtype=dtype).eval()
        vocabulary = model.config.vocab_size
        prompt = torch.tensor([ids(args.prompt, vocabulary)])

        def read(keep):
            with torch.inference_mode():
                model(prompt, use_cache=False, logits_to_keep=keep)

        def write(batch):
            with torch.inference_mode():
                start = prompt[:, :PROMPT_BEFORE_DECODING].expand(batch, -1)
                out = model(start, use_cache=True, logits_to_keep=1)
                for _ in range(args.decode):
                    token = out.logits[:, -1:].argmax(-1)
                    out = model(token, past_key_values=out.past_key_values, use_cache=True)

        who = f"transformers {transformers.__version__}, torch {torch.__version__}, {name}"
        timed(who, f"reading {args.prompt} tokens, logits of all", args.prompt, args.runs, lambda: read(0))
        timed(who, f"reading {args.prompt} tokens, logits of the last", args.prompt, args.runs, lambda: read(1))
        for batch in (1, 16):
            what = f"writing {args.decode} tokens, {batch} at once, prompt included"
            timed(who, what, args.decode * batch, args.runs, lambda: write(batch))
        del model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gguf")
    parser.add_argument("folder")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["llama.cpp", "transformers"])
    args = parser.parse_args()
    if args.only != "transformers":
        llama_cpp(args)
    if args.only != "llama.cpp":
        transformers(args)


if __name__ == "__main__":
    main()
