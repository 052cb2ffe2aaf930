"""Writes metrics.json: scores, truth and what scikit-learn makes of them.

Run with scikit-learn installed: python make_metrics.py > metrics.json
"""

import json

import numpy as np
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

rng = np.random.default_rng(20261123)
CASES = {
    "continuous": (lambda n: rng.random(n).round(6), 0.3),
    "tenths, as a language model writes them": (lambda n: rng.integers(0, 11, n) / 10, 0.3),
    "two values": (lambda n: rng.integers(0, 2, n).astype(float), 0.5),
    "one value": (lambda n: np.full(n, 0.5), 0.5),
    "rare positives": (lambda n: rng.random(n).round(2), 0.03),
    "nearly all positive": (lambda n: rng.random(n).round(2), 0.95),
}


def case(name: str, draw: object, share: float) -> dict:
    """One case of 150 samples, the scores a little right."""
    truth = rng.random(150) < share
    truth[:2] = [True, False]
    scores = draw(150)
    scores = np.where(truth & (rng.random(150) < 0.4), scores.max(), scores)
    precision, recall, _ = precision_recall_curve(truth, scores)
    return {
        "name": name,
        "scores": scores.tolist(),
        "truth": truth.tolist(),
        "roc_auc": roc_auc_score(truth, scores),
        "ap_step": average_precision_score(truth, scores),
        "ap_trapezoid": auc(recall, precision),
    }


print(json.dumps([case(name, *of) for name, of in CASES.items()], separators=(",", ":")))
