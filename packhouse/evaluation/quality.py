"""Quality metrics, computed by scikit-learn from a candidate's outputs and the labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from packhouse.errors import EvaluationFailed
from packhouse.metrics import QUALITY_SUB_TYPES, Metric
from packhouse.user_code import load_function

Array = np.ndarray[Any, np.dtype[Any]]
# Settings of a sub type that are passed on to the scikit-learn function.
PASSED_ON = {"average", "labels", "pos_label", "zero_division", "multi_class", "normalize"}


def quality(metric: Metric, outputs: Mapping[str, Array], labels: Array) -> float:
    """Return the value of an accuracy or custom metric.

    `outputs` maps output names to arrays (samples first), in the model's order. Metrics of classes use the first output:
    integers and texts are taken as labels, an n × classes array by its largest column, and a single column as positive
    where it exceeds `metric_config.threshold` (0.5). ROC AUC uses scores instead of labels.

    It may be no finite number, where that is what the metric or a user's function gives.

    Raises:
        EvaluationFailed: the outputs do not give the metric a meaning.
    """
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise EvaluationFailed(f"{int((~np.isfinite(array)).sum())} values of its output {name!r} are not finite")
    try:
        if metric.type == "custom":
            return _custom(metric, outputs, labels)
        return _classification(metric, next(iter(outputs.values())), labels)
    except (ValueError, TypeError, IndexError) as error:
        raise EvaluationFailed(f"{metric.name} cannot be computed: {error}") from error


def _custom(metric: Metric, outputs: Mapping[str, Array], labels: Array) -> float:
    assert metric.function is not None
    function = load_function(metric.function, f"metric {metric.name}, user_config.function")
    try:
        value = function(dict(outputs), labels)
    except (Exception, SystemExit) as error:
        raise EvaluationFailed(f"{metric.function} raised {type(error).__name__}: {error}") from error
    if isinstance(value, Mapping):
        if metric.sub_type not in value:
            raise EvaluationFailed(f"{metric.function} returned {', '.join(map(str, value))}, and no {metric.sub_type}")
        value = value[metric.sub_type]
    return float(value)


def _classification(metric: Metric, output: Array, labels: Array) -> float:
    from sklearn import metrics

    kind = QUALITY_SUB_TYPES[metric.sub_type]
    given = {key: value for key, value in metric.settings.items() if value is not None}
    settings = {key: value for key, value in given.items() if key in PASSED_ON}
    if kind == "roc_auc":
        scores = _scores(output)
        if scores.ndim == 2:
            settings = {"multi_class": "ovr", **settings}
        return float(metrics.roc_auc_score(labels, scores, **settings))
    predicted = _predicted(output, float(given.get("threshold", 0.5)))
    if kind in ("accuracy", "balanced_accuracy"):
        settings.pop("average", None)
    elif len(np.unique(labels)) > 2:
        settings = {"average": "macro", **settings}
    if kind in ("f1", "precision", "recall"):
        settings = {"zero_division": 0.0, **settings}
    return float(getattr(metrics, f"{kind}_score")(labels, predicted, **settings))


def _predicted(output: Array, threshold: float) -> Array:
    if output.ndim == 2 and output.shape[1] == 1:
        output = output[:, 0]
    if output.ndim == 2:
        return np.asarray(output.argmax(axis=1))
    if output.ndim == 1:
        return output if output.dtype.kind != "f" else (output > threshold).astype(np.int64)
    raise ValueError(f"an output of shape {output.shape} is neither labels nor scores per class; use a custom metric")


def _scores(output: Array) -> Array:
    if output.ndim == 2 and output.shape[1] == 1:
        output = output[:, 0]
    if output.ndim == 1:
        return output
    if not np.allclose(output.sum(axis=1), 1, atol=1e-3) or (output < 0).any():
        shifted = np.exp(output - output.max(axis=1, keepdims=True))
        output = shifted / shifted.sum(axis=1, keepdims=True)
    return output[:, 1] if output.shape[1] == 2 else output
