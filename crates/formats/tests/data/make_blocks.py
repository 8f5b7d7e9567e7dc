"""Golden blocks of every type whose bytes are not plain numbers, and golden encodings.

    pip install gguf==0.19.0 numpy torch
    python make_blocks.py LIBGGML

LIBGGML is the shared library of ggml (libggml-base.so of a llama.cpp or llama-cpp-python build; used: version 0.25.3).

blocks/<TYPE>.bin: n random blocks, then their n x block_len values as little-endian f32, decoded by the gguf package; by
ggml where the package has no decoder (Q1_0, Q2_0, Q8_K), by torch for the 8-bit floats, and by its one line of definition for
Q8_1, which neither decodes. The first blocks have chosen scales (zeros of both signs, negative, subnormal, largest
finite), the rest random finite ones.

encoded/rows.bin: rows of 256 f32, and encoded/<TYPE>.bin: their bytes as ggml's quantiser writes them without an importance
matrix. Where the gguf package has a quantiser too, it has to agree.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize

# Byte offsets of the f16 scales in each block.
SCALES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q8_1": [0],
    "IQ4_NL": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "Q8_K": [],
    "IQ1_S": [0],
    "IQ1_M": [],
    "IQ2_XXS": [0],
    "IQ2_XS": [0],
    "IQ2_S": [0],
    "IQ3_XXS": [0],
    "IQ3_S": [0],
    "IQ4_XS": [0],
    "TQ1_0": [52],
    "TQ2_0": [64],
    "MXFP4": [],
    "NVFP4": [],
    "Q1_0": [0],
    "Q2_0": [0],
}
# Types that the gguf package does not have, or has with another size.
IDS = {"Q2_0": 42}
SIZES = {"Q2_0": (64, 18), "Q8_1": (32, 36)}
CHOSEN = [0x0000, 0x8000, 0x3C00, 0xBC01, 0x0001, 0x83FF, 0x7BFF, 0xFBFF]
ENCODED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]


def scale(rng: np.random.Generator) -> int:
    while True:
        bits = int(rng.integers(0, 1 << 16))
        if bits & 0x7C00 != 0x7C00:
            return bits


def put(blocks: np.ndarray, index: int, offset: int, bits: int) -> None:
    blocks[index, offset : offset + 2] = np.frombuffer(np.uint16(bits).tobytes(), dtype=np.uint8)


def choose_scales(name: str, blocks: np.ndarray, rng: np.random.Generator) -> None:
    count = len(blocks)
    offsets = SCALES[name]
    for index in range(count):
        for place, offset in enumerate(offsets):
            chosen = index < len(CHOSEN) and (place == 0 or index % 2 == 0)
            put(blocks, index, offset, CHOSEN[(index + 3 * place) % len(CHOSEN)] if chosen else scale(rng))
        if name == "IQ1_M":
            bits = CHOSEN[index] if index < len(CHOSEN) else scale(rng)
            for word in range(4):
                high = 48 + 2 * word + 1
                blocks[index, high] = blocks[index, high] & 15 | (bits >> 4 * word & 15) << 4
        if name == "Q8_K":
            d = [0.0, -0.0, 1.0, -0.37, 1e-45, -1e-39, 2e36, -1e-3][index % 8]
            blocks[index, :4] = np.frombuffer(np.float32(d).tobytes(), dtype=np.uint8)
        if name == "MXFP4":
            # 252 and above overflow f32.
            blocks[index, 0] = [0, 1, 2, 127, 251][index] if index < 5 else rng.integers(0, 252)
        if name == "NVFP4" and index < 4:
            blocks[index, :4] = [[0, 1, 7, 8], [0x7E, 0x7F, 0x80, 0x81], [0xFE, 0xFF, 0x38, 0xB8], [9, 0x40, 0x77, 0x78]][index]


def decode(ggml: ctypes.CDLL, name: str, blocks: np.ndarray) -> np.ndarray:
    count = len(blocks)
    if name == "Q8_1":
        d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        return d * blocks[:, 4:].view(np.int8).astype(np.float32)
    if name in ("Q1_0", "Q2_0", "Q8_K"):
        size = (SIZES.get(name) or GGML_QUANT_SIZES[GGMLQuantizationType[name]])[0] * count
        values = np.empty(size, dtype=np.float32)
        run = getattr(ggml, f"dequantize_row_{name.replace('Q', 'q')}")
        run(blocks.ctypes.data_as(ctypes.c_void_p), values.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(size))
        return values
    return dequantize(blocks, GGMLQuantizationType[name])


def write_blocks(ggml: ctypes.CDLL, out: Path) -> None:
    for name in SCALES:
        kind = IDS.get(name) or int(GGMLQuantizationType[name])
        block_len, block_bytes = SIZES.get(name) or GGML_QUANT_SIZES[GGMLQuantizationType[name]]
        count = 32 if block_len == 32 else 8
        rng = np.random.default_rng(20250101 + kind)
        blocks = rng.integers(0, 256, size=(count, block_bytes), dtype=np.uint8)
        choose_scales(name, blocks, rng)
        values = decode(ggml, name, blocks).astype("<f4")
        assert np.isfinite(values).all(), name
        (out / f"{name}.bin").write_bytes(blocks.tobytes() + values.tobytes())
    every_byte = np.arange(256, dtype=np.uint8)
    for name, kind in [("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)]:
        values = torch.from_numpy(every_byte.copy()).view(kind).float().numpy().astype("<f4")
        (out / f"{name}.bin").write_bytes(every_byte.tobytes() + values.tobytes())


def rows_to_encode() -> np.ndarray:
    rng = np.random.default_rng(20250102)
    normal = rng.standard_normal((6, 256)) * np.array([[0.02], [1.0], [1.0], [300.0], [1e-4], [1e-6]])
    heavy = rng.standard_t(3, (2, 256)) * 0.05
    positive = np.abs(rng.standard_normal((1, 256)))
    negative = -1.0 - np.abs(rng.standard_normal((1, 256)))
    steps = (np.arange(256) % 37 - 18.0).reshape(1, 256) / 4.0
    outlier = rng.standard_normal((1, 256)) * 0.01
    outlier[0, 77] = 50.0
    # Without the negative zeros of the product: the two quantisers differ in the sign of a minimum of zero.
    sparse = rng.standard_normal((1, 256)) * (rng.random((1, 256)) < 0.1) + 0.0
    sparse[0, 64:96] = 0.0
    constant = np.repeat(np.array([[0.0], [0.3], [-7.0]]), 256, axis=1)
    mixed = np.repeat(10.0 ** np.arange(-6.0, 2.0), 32).reshape(1, 256) * rng.standard_normal((1, 256))
    rows = np.concatenate([normal, heavy, positive, negative, steps, outlier, sparse, constant, mixed])
    return np.ascontiguousarray(rows.astype("<f4"))


def write_encoded(ggml: ctypes.CDLL, out: Path) -> None:
    rows = rows_to_encode()
    (out / "rows.bin").write_bytes(rows.tobytes())
    for name in ENCODED:
        kind = GGMLQuantizationType[name]
        block_len, block_bytes = GGML_QUANT_SIZES[kind]
        stored = np.zeros((len(rows), 256 // block_len * block_bytes), dtype=np.uint8)
        run = getattr(ggml, f"quantize_row_{name.replace('Q', 'q')}_ref")
        source, target = (array.ctypes.data_as(ctypes.c_void_p) for array in (rows, stored))
        run(source, target, ctypes.c_int64(rows.size))
        if not name.endswith("K"):
            assert (quantize(rows, kind) == stored).all(), name
        (out / f"{name}.bin").write_bytes(stored.tobytes())


def main() -> None:
    ggml = ctypes.CDLL(sys.argv[1])
    here = Path(__file__).parent
    for folder, write in [("blocks", write_blocks), ("encoded", write_encoded)]:
        (here / folder).mkdir(exist_ok=True)
        write(ggml, here / folder)


if __name__ == "__main__":
    main()
