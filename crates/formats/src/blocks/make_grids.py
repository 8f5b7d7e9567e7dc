"""The grids of the IQ1, IQ2 and IQ3 types, as grids.bin.

    pip install gguf==0.19.0 numpy
    python make_grids.py

The grids are constants of ggml's formats, chosen by its authors from weights of real models; no formula gives them. Each
entry is a little-endian u16: eight 2-bit or four 4-bit indices of levels, the first in the lowest bits. The levels
themselves are in grid.rs.
"""

from pathlib import Path

from gguf import quants

# The order and the sizes are those of the constants in grid.rs.
GRIDS = [
    (quants.IQ1_S, (2048, 8)),
    (quants.IQ2_XXS, (256, 8)),
    (quants.IQ2_XS, (512, 8)),
    (quants.IQ2_S, (1024, 8)),
    (quants.IQ3_XXS, (256, 4)),
    (quants.IQ3_S, (512, 4)),
]


def main() -> None:
    packed = b""
    for kind, shape in GRIDS:
        assert kind.grid_shape == shape, kind
        grid = bytes.fromhex(kind.grid_hex.decode())
        assert len(grid) == 2 * shape[0], kind
        packed += grid
    (Path(__file__).parent / "grids.bin").write_bytes(packed)


if __name__ == "__main__":
    main()
