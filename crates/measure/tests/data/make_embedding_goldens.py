"""Agreement, matching, ranking, correlation and logistic regression as scikit-learn, scipy and numpy compute them, for the
tests of src/clusters, src/logistic and src/ranking: python make_embedding_goldens.py > embedding_goldens.json"""
import json

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    adjusted_mutual_info_score,
    average_precision_score,
    homogeneity_completeness_v_measure,
    normalized_mutual_info_score,
)
from sklearn.metrics.cluster import contingency_matrix, pair_confusion_matrix

random = np.random.default_rng(8)


def agreement(a, b):
    h, c, v = homogeneity_completeness_v_measure(a, b)
    (_, n01), (n10, n11) = pair_confusion_matrix(a, b)
    table = contingency_matrix(a, b)
    rows, columns = linear_sum_assignment(-table)
    return {
        "a": [int(x) for x in a],
        "b": [int(x) for x in b],
        "v_measure": float(v),
        "homogeneity": float(h),
        "completeness": float(c),
        "nmi": float(normalized_mutual_info_score(a, b)),
        "ami": float(adjusted_mutual_info_score(a, b)),
        "pair_jaccard": float(n11 / (n11 + n10 + n01)) if n11 + n10 + n01 else None,
        "matched": float(table[rows, columns].sum() / len(a)),
    }


def agreements():
    yield agreement([0, 0, 1, 1], [0, 0, 1, 2])
    for n, ka, kb, kept in [(12, 3, 3, 0.5), (30, 2, 6, 0.0), (60, 5, 5, 0.8), (200, 20, 20, 0.0), (200, 20, 7, 0.4),
                            (300, 4, 40, 0.6), (50, 50, 3, 0.0), (500, 20, 20, 0.3)]:
        a = random.integers(0, ka, n)
        b = np.where(random.random(n) < kept, a % kb, random.integers(0, kb, n))
        yield agreement(a, b)
    # Sizes that differ a lot.
    a = random.choice(6, 150, p=[0.7, 0.1, 0.1, 0.05, 0.03, 0.02])
    yield agreement(a, np.where(random.random(150) < 0.2, 0, a))


def matching(rows, columns):
    gains = random.integers(-3, 20, (rows, columns))
    chosen = linear_sum_assignment(-gains)
    return {"gains": gains.tolist(), "greatest": int(gains[chosen].sum())}


def ranking(n, levels):
    scores = np.round(random.random(n) * levels) / levels
    relevant = random.random(n) < 0.3
    relevant[0] = True
    ap = average_precision_score(relevant, scores)
    return {"scores": scores.tolist(), "relevant": [bool(x) for x in relevant], "average_precision": float(ap)}


def correlation(n, levels):
    a = random.integers(0, levels, n).astype(float)
    b = np.round(a + random.normal(0, levels / 3, n))
    return {
        "a": a.tolist(),
        "b": b.tolist(),
        "pearson": float(pearsonr(a, b)[0]),
        "spearman": float(spearmanr(a, b)[0]),
    }


def logistic(classes, n, width, c):
    centres = random.normal(0, 1, (classes, width))
    labels = np.arange(n) % classes
    values = np.round((centres[labels] + random.normal(0, 1.5, (n, width))) * 64) / 64
    values = values.astype(np.float32)
    model = LogisticRegression(C=c, tol=1e-10, max_iter=20000).fit(values.astype(np.float64), labels)
    scores = np.concatenate([model.coef_, model.intercept_[:, None]], axis=1)
    return {
        "width": width,
        "classes": classes,
        "c": c,
        "values": [float(x) for x in values.ravel()],
        "labels": [int(x) for x in labels],
        "scores": scores.ravel().tolist(),
        "probabilities": model.predict_proba(values[:3].astype(np.float64)).ravel().tolist(),
    }


def shuffle(seed, items):
    rows = list(range(items))
    np.random.RandomState(seed).shuffle(rows)
    return {"seed": seed, "shuffled": rows}


print(json.dumps({
    "agreement": list(agreements()),
    "matching": [matching(*shape) for shape in [(1, 1), (3, 3), (2, 5), (7, 4), (8, 8), (12, 15)]],
    "ranking": [ranking(*case) for case in [(10, 1000), (20, 4), (50, 10), (200, 30)]],
    "correlation": [correlation(*case) for case in [(5, 3), (20, 5), (100, 10), (300, 1000)]],
    "logistic": [logistic(*case) for case in [(2, 40, 6, 1.0), (2, 30, 20, 0.1), (3, 30, 4, 10.0), (5, 60, 8, 1.0)]],
    "shuffles": [shuffle(0, 7), shuffle(42, 50), shuffle(7, 1500)],
}, separators=(",", ":")))
