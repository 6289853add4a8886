"""Quality metrics, computed by scikit-learn from a candidate's outputs and the labels, and how sure they are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packhouse.errors import EvaluationFailed
from packhouse.metrics import QUALITY_SUB_TYPES, Metric
from packhouse.statistics import (
    CONFIDENCE,
    Interval,
    bootstrap_interval,
    paired_share_interval,
    share_interval,
)
from packhouse.user_code import load_function

Array = np.ndarray[Any, np.dtype[Any]]
Outputs = Mapping[str, Array]
RESAMPLES = 500  # scikit-learn is called once for each
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


def quality_interval(metric: Metric, outputs: Outputs, labels: Array, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the interval of an accuracy metric over other samples of the same kind; None for a custom metric.

    A share of samples has Wilson's interval, all else is found by drawing samples.
    """
    if metric.type == "custom" or len(labels) < 2:
        return None
    if _is_share(metric):
        hits = _hits(metric, outputs, labels)
        return share_interval(int(hits.sum()), len(hits), confidence)
    return _drawn(metric, [outputs], labels, lambda values: values[0], confidence)


def quality_difference_interval(
    metric: Metric, first: Outputs, second: Outputs, labels: Array, confidence: float = CONFIDENCE
) -> Interval | None:
    """Return the interval of the first candidate's value minus the second's, on the same samples; None for a custom metric."""
    if metric.type == "custom" or len(labels) < 2:
        return None
    if _is_share(metric):
        ours, theirs = _hits(metric, first, labels), _hits(metric, second, labels)
        return paired_share_interval(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), len(labels), confidence)
    return _drawn(metric, [first, second], labels, lambda values: values[0] - values[1], confidence)


def _is_share(metric: Metric) -> bool:
    return QUALITY_SUB_TYPES[metric.sub_type] == "accuracy" and metric.settings.get("normalize") is not False


def _hits(metric: Metric, outputs: Outputs, labels: Array) -> Array:
    return np.asarray(_predicted(next(iter(outputs.values())), _threshold(metric)) == labels.reshape(len(labels)))


def _drawn(
    metric: Metric,
    candidates: Sequence[Outputs],
    labels: Array,
    combine: Callable[[Sequence[float]], float],
    confidence: float,
) -> Interval | None:
    """Return the interval of what `combine` makes of the candidates' values, by drawing samples; the same for all of them.

    Samples on which labels and predictions are the same are counted together. Draws in which the metric has no meaning, because
    a class has no sample, are left out; there is no interval where these are more than half.
    """
    first = [next(iter(outputs.values())) for outputs in candidates]
    if QUALITY_SUB_TYPES[metric.sub_type] == "roc_auc":
        judged, rows = first, np.arange(len(labels))
        groups = rows
    else:
        judged = [_predicted(output, _threshold(metric)) for output in first]
        codes = np.stack([np.unique(column, return_inverse=True)[1].ravel() for column in (labels, *judged)], axis=1)
        _, rows, inverse = np.unique(codes, axis=0, return_index=True, return_inverse=True)
        groups = inverse.ravel()

    def values(draws: NDArray[np.intp]) -> NDArray[np.float64]:
        found = []
        for draw in draws:
            weights = np.bincount(groups[draw], minlength=len(rows))
            used = rows[weights > 0]
            try:
                scores = [_score(metric, item[used], labels[used], weights[weights > 0], of=labels) for item in judged]
            except ValueError:
                scores = [float("nan")] * len(judged)
            found.append(combine(scores))
        return np.asarray(found)

    return bootstrap_interval(values, len(labels), confidence, RESAMPLES)


def _classification(metric: Metric, output: Array, labels: Array) -> float:
    if QUALITY_SUB_TYPES[metric.sub_type] == "roc_auc":
        return _score(metric, output, labels)
    return _score(metric, _predicted(output, _threshold(metric)), labels)


def _threshold(metric: Metric) -> float:
    given = metric.settings.get("threshold")
    return 0.5 if given is None else float(given)


def _score(metric: Metric, judged: Array, labels: Array, weights: Array | None = None, of: Array | None = None) -> float:
    """Return the value of predicted labels, or for ROC AUC of the output itself, with a weight for each sample.

    `of` are the labels that `labels` were drawn from: a class that was not drawn is still one.
    """
    kind = QUALITY_SUB_TYPES[metric.sub_type]
    settings = {key: value for key, value in metric.settings.items() if value is not None and key in PASSED_ON}
    if kind == "accuracy" and weights is None and not settings.keys() - {"average"} and _are_classes(labels, judged):
        return float(np.mean(judged == labels))  # what scikit-learn gives, whose import takes longer than all else
    from sklearn import metrics

    if weights is not None:
        settings["sample_weight"] = weights
    if kind == "roc_auc":
        scores = _scores(judged)
        if scores.ndim == 2:
            settings = {"multi_class": "ovr", **settings}
        return float(metrics.roc_auc_score(labels, scores, **settings))
    if kind in ("accuracy", "balanced_accuracy"):
        settings.pop("average", None)
    elif len(np.unique(labels if of is None else of)) > 2:
        settings = {"average": "macro", **settings}
    if kind in ("f1", "precision", "recall"):
        settings = {"zero_division": 0.0, **settings}
    return float(getattr(metrics, f"{kind}_score")(labels, judged, **settings))


def _are_classes(labels: Array, judged: Array) -> bool:
    return labels.ndim == 1 and labels.shape == judged.shape and labels.dtype.kind in "iu" and judged.dtype.kind in "iu"


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
