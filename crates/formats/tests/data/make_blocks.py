"""Golden blocks of every quantised type that the reader decodes.

    pip install gguf==0.19.0 numpy
    python make_blocks.py

writes blocks/<TYPE>.bin: n random blocks, then their n x block_len values as little-endian f32, decoded by the gguf
package. The first blocks have chosen scales (zeros of both signs, negative, subnormal, largest finite), the rest
random finite ones.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Byte offsets of the f16 scales in each block.
SCALES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "IQ4_NL": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}
CHOSEN = [0x0000, 0x8000, 0x3C00, 0xBC01, 0x0001, 0x83FF, 0x7BFF, 0xFBFF]


def scale(rng: np.random.Generator) -> int:
    while True:
        bits = int(rng.integers(0, 1 << 16))
        if bits & 0x7C00 != 0x7C00:
            return bits


def main() -> None:
    out = Path(__file__).parent / "blocks"
    for name, offsets in SCALES.items():
        kind = GGMLQuantizationType[name]
        block_len, block_bytes = GGML_QUANT_SIZES[kind]
        count = 32 if block_len == 32 else 8
        rng = np.random.default_rng(20250101 + int(kind))
        blocks = rng.integers(0, 256, size=(count, block_bytes), dtype=np.uint8)
        for index in range(count):
            for place, offset in enumerate(offsets):
                chosen = index < len(CHOSEN) and (place == 0 or index % 2 == 0)
                bits = CHOSEN[(index + 3 * place) % len(CHOSEN)] if chosen else scale(rng)
                blocks[index, offset : offset + 2] = np.frombuffer(np.uint16(bits).tobytes(), dtype=np.uint8)
        values = dequantize(blocks, kind).astype("<f4")
        assert np.isfinite(values).all(), name
        (out / f"{name}.bin").write_bytes(blocks.tobytes() + values.tobytes())


if __name__ == "__main__":
    main()
