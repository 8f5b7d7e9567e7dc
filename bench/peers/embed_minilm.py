"""Times sentence-transformers on texts on the CPU, and says how far its vectors are from another program's.

    embed_minilm.py FOLDER TEXTS.jsonl [--threads 2] [--batch 32] [--compute f32|bf16] [--vectors OTHER.npy]

FOLDER holds the model. Prints a row of JSON: seconds of imports, of loading and of encoding (tokenising included; the library
sorts texts by length), processor seconds of encoding, and the worst of the vectors where there are others. Some texts that
are not counted go before.
"""

import argparse, json, resource, time
from importlib.metadata import version

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("texts")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--compute", choices=["f32", "bf16"], default="f32")
parser.add_argument("--vectors")
args = parser.parse_args()

start = time.perf_counter()
import numpy
import torch
from sentence_transformers import SentenceTransformer

torch.set_num_threads(args.threads)
importing = time.perf_counter() - start
texts = [json.loads(line)["text"] for line in open(args.texts)]
start = time.perf_counter()
dtype = dict(f32=torch.float32, bf16=torch.bfloat16)[args.compute]
model = SentenceTransformer(args.folder, device="cpu", model_kwargs=dict(dtype=dtype))
loading = time.perf_counter() - start
model.encode(texts[:64], batch_size=args.batch, show_progress_bar=False)
start, before = time.perf_counter(), time.process_time()
vectors = model.encode(texts, batch_size=args.batch, show_progress_bar=False)
seconds, processor = time.perf_counter() - start, time.process_time() - before
row = dict(
    who=f"sentence-transformers {version('sentence-transformers')}, torch {torch.__version__}, {args.compute}, batches of {args.batch}",
    texts=len(texts),
    tokens=sum(len(ids) for ids in model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"]),
    importing=importing,
    loading=loading,
    seconds=seconds,
    processor_seconds=processor,
    peak_rss_kb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
)
if args.vectors:
    other = numpy.load(args.vectors).astype(numpy.float64)
    cosines = (vectors * other).sum(1) / numpy.linalg.norm(vectors, axis=1) / numpy.linalg.norm(other, axis=1)
    row |= dict(worst_value=float(abs(vectors - other).max()), worst_cosine=float(cosines.min()))
print(json.dumps(row))
