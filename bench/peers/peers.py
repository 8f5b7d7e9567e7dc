"""Times one peer of lathe in a process of its own, in the way of `lathe bench`.

usage: peers.py llama.cpp MODEL.gguf             through llama-cpp-python's low-level calls
       peers.py transformers-f32 FOLDER          FOLDER: `lathe export MODEL --to safetensors --dtype f32`
       peers.py transformers-bf16 FOLDER
       peers.py training FOLDER                  forward and backward with every parameter, f32
       peers.py lora FOLDER                      the same with factors of rank 8 beside query and value projections, by peft
       peers.py spectrum                         matrix nuclear norm of 512 x 2048, by columns and by singular values
options: [--prompt 512] [--decode 64] [--runs 5] [--threads 2]

Prints one JSON line for each thing timed: the seconds of every run, after one that does not count. What a row is called is
what `lathe bench --json` calls it.
"""

import argparse
import json
import resource
import time

PROMPT_BEFORE_WRITING = 16
# A row that has taken this many seconds ends after its second run that counts.
LONG = 30.0


def ids(count, vocabulary):
    return [i * 7919 % vocabulary for i in range(count)]


class Rows:
    def __init__(self, who, runs):
        self.who, self.runs = who, runs

    def print(self, **row):
        print(json.dumps({"who": self.who} | row), flush=True)

    def timed(self, what, tokens, run, prepare=lambda: None):
        """Seconds of `run(prepare())`, without the preparation."""
        seconds, taken = [], 0.0
        for i in range(self.runs + 1):
            prepared = prepare()
            started = time.perf_counter()
            run(prepared)
            of_run = time.perf_counter() - started
            taken += of_run
            if i > 0:
                seconds.append(of_run)
            if taken > LONG and i >= 2:
                break
        self.print(what=what, tokens=tokens, seconds=seconds)

    def loaded(self, load):
        started = time.perf_counter()
        loaded = load()
        self.print(what="loading", seconds=[time.perf_counter() - started])
        return loaded

    def peak_memory(self, of=None):
        # Kilobytes on Linux.
        self.print(what="peak memory", of=of, bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def llama_cpp(args):
    import ctypes

    import llama_cpp as ll

    silent = ll.llama_log_callback(lambda *_: None)
    ll.llama_log_set(silent, ctypes.c_void_p(0))
    ll.llama_backend_init()
    rows = Rows(f"llama.cpp (llama-cpp-python {ll.__version__})", args.runs)
    path = args.model.encode()
    model = rows.loaded(lambda: ll.llama_model_load_from_file(path, ll.llama_model_default_params()))
    vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))

    def context(tokens, sequences):
        parameters = ll.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = tokens, 512, 512
        parameters.n_seq_max, parameters.kv_unified = sequences, False
        parameters.n_threads = parameters.n_threads_batch = args.threads
        return ll.llama_init_from_model(model, parameters)

    def decode(context, tokens, keep):
        """Runs (id, position, sequence) entries; `keep(i)` says whose logits are computed."""
        batch = ll.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, keep(i)
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if ll.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        ll.llama_get_logits(context)  # Waits for the result.
        ll.llama_batch_free(batch)

    n = args.prompt
    prompt = [(token, position, 0) for position, token in enumerate(ids(n, vocabulary))]
    reader = context(max(n, 512), 1)
    clear = lambda of: ll.llama_memory_clear(ll.llama_get_memory(of), True)
    for which, keep in (("all", lambda i: 1), ("the last", lambda i: i == n - 1)):
        rows.timed(
            f"reading {n} tokens, logits of {which}", n,
            lambda _: decode(reader, prompt, keep), lambda: clear(reader),
        )
    ll.llama_free(reader)
    for batch in (1, 16):
        # As much room for each sequence as it needs.
        writer = context(batch * (PROMPT_BEFORE_WRITING + args.decode), batch)

        def start():
            clear(writer)
            for slot in range(batch):
                tokens = enumerate(ids(PROMPT_BEFORE_WRITING, vocabulary))
                decode(writer, [(token, position, slot) for position, token in tokens], lambda i: 0)

        def write(_):
            for i, token in enumerate(ids(args.decode, vocabulary)):
                step = [(token, PROMPT_BEFORE_WRITING + i, slot) for slot in range(batch)]
                decode(writer, step, lambda i: 1)

        rows.timed(f"writing {args.decode} tokens, {batch} at once", args.decode * batch, write, start)
        ll.llama_free(writer)
    rows.peak_memory()


def prepare_transformers(args, name):
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    rows = Rows(f"transformers {transformers.__version__}, torch {torch.__version__}, {name}", args.runs)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[name]
    return rows, lambda: transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)


def transformers(args, name):
    import torch

    rows, load = prepare_transformers(args, name)
    model = rows.loaded(load).eval()
    n = args.prompt
    prompt = torch.tensor([ids(n, model.config.vocab_size)])

    def read(keep):
        model(prompt, use_cache=False, logits_to_keep=keep)

    def start(batch):
        return model(prompt[:, :PROMPT_BEFORE_WRITING].expand(batch, -1), use_cache=True, logits_to_keep=1)

    def write(out):
        for _ in range(args.decode):
            out = model(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)

    with torch.inference_mode():
        rows.timed(f"reading {n} tokens, logits of all", n, lambda _: read(0))
        rows.timed(f"reading {n} tokens, logits of the last", n, lambda _: read(1))
        for batch in (1, 16):
            what = f"writing {args.decode} tokens, {batch} at once"
            rows.timed(what, args.decode * batch, write, lambda: start(batch))
    rows.peak_memory()


def training(args, lora=False):
    import torch

    rows, load = prepare_transformers(args, "f32")
    model, kind = load(), "training step"
    if lora:
        import peft

        # Factors as `lathe bench --training lora` has them.
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model, kind = peft.get_peft_model(model, config), "lora step"
    model = model.train()
    sequences, length = 4, 256
    batch = torch.tensor(ids(sequences * length, model.config.vocab_size)).view(sequences, length)

    def step(_):
        model.zero_grad(set_to_none=True)
        model(batch, labels=batch, use_cache=False).loss.backward()

    what = f"{kind} of {sequences} x {length} tokens"
    rows.timed(what, sequences * length, step)
    rows.peak_memory(what)


def spectrum(args):
    import torch

    torch.set_num_threads(args.threads)
    rows = Rows(f"torch {torch.__version__}", args.runs)
    n, d = 512, 2048
    states = torch.randn(n, d, generator=torch.Generator().manual_seed(0))

    def unit_rows():
        centred = states - states.mean(0)
        return centred / centred.norm(dim=1, keepdim=True)

    def columns(_):
        return unit_rows().norm(dim=0).topk(min(n, d)).values.sum().item() / n

    def singular_values(_):
        return torch.linalg.svdvals(unit_rows()).sum().item() / n

    with torch.inference_mode():
        rows.timed(f"matrix nuclear norm of {n} x {d}", 0, columns)
        rows.timed(f"matrix nuclear norm of {n} x {d}, by singular values", 0, singular_values)


def main():
    parser = argparse.ArgumentParser()
    peers = {
        "llama.cpp": llama_cpp,
        "transformers-f32": lambda args: transformers(args, "f32"),
        "transformers-bf16": lambda args: transformers(args, "bf16"),
        "training": training,
        "lora": lambda args: training(args, lora=True),
        "spectrum": spectrum,
    }
    parser.add_argument("peer", choices=list(peers))
    parser.add_argument("model", nargs="?")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    peers[args.peer](args)


if __name__ == "__main__":
    main()
