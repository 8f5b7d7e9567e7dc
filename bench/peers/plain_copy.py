"""Reads two files and writes as many bytes as one of them has.

The least that a linear merge of two models has to move. usage: plain_copy.py A B OUT [THREADS]     default: one for each core
"""

import json
import os
import sys
import threading
import time

PIECE = 4 << 20
one, two, out = (os.open(path, flags, 0o644) for path, flags in
                 zip(sys.argv[1:4], [os.O_RDONLY, os.O_RDONLY, os.O_RDWR | os.O_CREAT | os.O_TRUNC]))
length = os.fstat(one).st_size
os.ftruncate(out, length)
threads = int(sys.argv[4]) if len(sys.argv) > 4 else os.cpu_count()


def run(first):
    a, b = bytearray(PIECE), bytearray(PIECE)
    for at in range(first * PIECE, length, threads * PIECE):
        os.preadv(two, [b], at)
        read = os.preadv(one, [a], at)
        os.pwrite(out, memoryview(a)[:read], at)


started = time.monotonic()
workers = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(json.dumps({"threads": threads, "seconds": time.monotonic() - started, "bytes": 3 * length}))
