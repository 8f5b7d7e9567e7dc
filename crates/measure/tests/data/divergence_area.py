"""Areas under divergence curves for the test in src/samples/mauve.rs: the definition, in numpy."""
import numpy as np

CASES = [
    ([0.25, 0.25, 0.5], [0.25, 0.25, 0.5]),
    ([0.7, 0.2, 0.1], [0.2, 0.3, 0.5]),
    ([0.5, 0.5, 0.0], [0.0, 0.5, 0.5]),
    ([1.0, 0.0], [0.0, 1.0]),
]


def kl(a, b):
    inside = a > 0
    return float(np.sum(a[inside] * np.log(a[inside] / b[inside])))


def area(p, q, scale=5.0, points=25):
    curve = [(0.0, np.inf)]
    for weight in np.linspace(1e-6, 1 - 1e-6, points):
        r = weight * p + (1 - weight) * q
        curve.append((kl(q, r), kl(p, r)))
    curve.append((np.inf, 0.0))
    x, y = np.exp(-scale * np.array(curve)).T
    # x falls and y rises along the curve.
    return float(np.trapezoid(y[::-1], x[::-1]))


for p, q in CASES:
    print(f"        (&{p}, &{q}, {area(np.array(p), np.array(q))!r}),")
