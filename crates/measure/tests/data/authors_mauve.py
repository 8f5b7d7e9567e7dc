"""Numbers of the test `sets_that_the_authors_package_measured`: MAUVE of made-up features by the authors' package.

Needs numpy, faiss-cpu and mauve-text (0.4.0 was used). Prints the area for eight seeds of k-means.
"""

import mauve
import numpy as np


def numbers(count, seed):
    """Between -1 and 1, from a congruential generator that the test runs too."""
    out = []
    for _ in range(count):
        seed = (seed * 747796405 + 2891336453) % 2**32
        out.append(seed / 2**32 * 2 - 1)
    return np.array(out)


def sets(spread, counts, width=6):
    """Texts around one centre for each count; the second set has the counts in reverse."""
    centres = numbers(len(counts) * width, 7).reshape(-1, width)

    def draw(counts, seed):
        labels = np.repeat(np.arange(len(counts)), counts)
        return (centres[labels] + spread * numbers(len(labels) * width, seed).reshape(-1, width)).astype(np.float32)

    return draw(counts, 8), draw(counts[::-1], 9)


for name, spread in {"apart": 0.02, "overlapping": 1.5}.items():
    p, q = sets(spread, [80, 60, 40, 20])
    areas = [mauve.compute_mauve(p_features=p, q_features=q, num_buckets=4, seed=s, verbose=False).mauve for s in range(8)]
    print(name, *areas)
