"""What is read off logits of held-out examples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bedside.core.learning.metrics import count_confusion, macro_f1

from .study import Answers


def hits(answers: Answers) -> list[npt.NDArray[np.bool_]]:
    """For each owner, which examples are classified as labelled; one output is a label that holds above 0."""
    found = []
    for held, logits in answers:
        said = (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(axis=1)
        found.append(said == held.windows.y.reshape(len(logits)))
    return found


def accuracy(answers: Answers) -> dict[str, float]:
    """Over all held-out examples, and the mean over their owners."""
    right = hits(answers)
    return {
        "pooled": float(np.concatenate(right).mean()),
        "client_average": float(np.mean([one.mean() for one in right])),
    }


def auroc(score: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve, ties counted half (Mann-Whitney)."""
    order = np.argsort(score, kind="stable")
    _, first, counts = np.unique(score[order], return_index=True, return_counts=True)
    ranks = np.empty(len(score))
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    positive = int(truth.sum())
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))


def risk(answers: Answers) -> dict[str, float]:
    """AUROC of the second of two outputs over all examples, and the mean over owners."""
    parts = [
        ((logits[:, 1] - logits[:, 0]).astype(np.float64), held.windows.y.reshape(-1) > 0.5) for held, logits in answers
    ]
    score, truth = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {"auroc": auroc(score, truth), "auroc_by_unit": float(np.mean([auroc(*part) for part in parts]))}


def beats(answers: Answers) -> dict[str, float]:
    """Macro-F1 over the AAMI classes N, S, V, F, Q (one that is never predicted counts as 0), and sensitivities."""
    classes = 5
    confusion = np.zeros((classes, classes), np.int64)
    for held, logits in answers:
        confusion += count_confusion(held.windows.y, logits.argmax(axis=1), classes)
    seen = np.maximum(confusion.sum(axis=1), 1)
    three = confusion[:3, :3]
    return {
        "macro_f1": macro_f1(confusion),
        "macro_f1_nsv": macro_f1(three),
        "v_sensitivity": float(confusion[2, 2] / seen[2]),
        "s_sensitivity": float(confusion[1, 1] / seen[1]),
    }
