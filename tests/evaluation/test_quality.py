"""Quality metrics, compared with scikit-learn called directly on labels and scores that are written out here."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from packhouse.errors import EvaluationFailed
from packhouse.evaluation.quality import quality, quality_difference_interval, quality_interval
from packhouse.metrics import QUALITY_SUB_TYPES, Metric, Tolerance
from packhouse.statistics import Interval, paired_share_interval, share_interval

BINARY = np.array([0, 1, 1, 0, 1, 0, 1, 1])
POSITIVE = np.array([0.1, 0.9, 0.4, 0.6, 0.8, 0.2, 0.55, 0.3], np.float32)  # how sure a model is of class 1
CLASSES = np.array([0, 1, 2, 2, 1, 0, 2, 0, 1, 2])
LOGITS = np.array(
    [
        [4.0, 1.0, 0.5],
        [0.2, 2.0, 0.1],
        [0.3, 0.2, 1.0],
        [2.0, 0.1, 1.9],
        [0.0, 3.0, -1.0],
        [-1.0, 0.5, 0.0],
        [0.1, 0.2, 5.0],
        [1.5, 1.0, 0.5],
        [0.5, 1.5, 1.0],
        [-2.0, -1.0, -0.5],
    ]
)
CHOSEN = [0, 1, 2, 0, 1, 1, 2, 0, 1, 2]  # the class of the largest logit in each row
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)

AVERAGED: dict[str, Callable[..., Any]] = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}
OF_CLASSES: dict[str, Callable[..., Any]] = {"accuracy": sk.accuracy_score, "balanced_accuracy": sk.balanced_accuracy_score}


def metric(sub_type: str, kind: Any = "accuracy", function: str | None = None, **settings: Any) -> Metric:
    return Metric(
        name=f"mine-{sub_type}",
        type=kind,
        sub_type=sub_type,
        priority=1,
        higher_is_better=True,
        goal=None,
        tolerance=Tolerance(),
        settings=settings,
        function=function,
    )


def value(sub_type: str, output: Any, labels: Any, /, **settings: Any) -> float:
    return quality(metric(sub_type, **settings), {"y": np.asarray(output)}, np.asarray(labels))


class TestBinary:
    @pytest.mark.parametrize("sub_type", [*OF_CLASSES, *AVERAGED])
    @pytest.mark.parametrize("threshold", [None, 0.3, 0.5, 0.85])
    @pytest.mark.parametrize("shape", [(8,), (8, 1)])
    def test_one_column_is_positive_above_the_threshold(
        self, sub_type: str, threshold: float | None, shape: tuple[int, ...]
    ) -> None:
        predicted = [int(sure > (0.5 if threshold is None else np.float32(threshold))) for sure in POSITIVE]

        expected = {**OF_CLASSES, **AVERAGED}[sub_type](
            BINARY, predicted, **({"zero_division": 0.0} if sub_type in AVERAGED else {})
        )
        assert value(sub_type, POSITIVE.reshape(shape), BINARY, threshold=threshold) == pytest.approx(expected, abs=1e-12)

    def test_a_value_at_the_threshold_is_negative(self) -> None:
        assert value("accuracy", np.array([0.5, 0.75]), [0, 1]) == 1.0

    @pytest.mark.parametrize("sub_type", [*OF_CLASSES, *AVERAGED])
    def test_two_columns_are_the_class_of_the_larger_one(self, sub_type: str) -> None:
        output = np.stack([1 - POSITIVE, POSITIVE], axis=1)

        assert value(sub_type, output, BINARY) == {**OF_CLASSES, **AVERAGED}[sub_type](BINARY, [0, 1, 0, 1, 1, 0, 1, 0])

    @pytest.mark.parametrize(
        "output",
        [
            POSITIVE,
            POSITIVE[:, None],
            np.stack([1 - POSITIVE, POSITIVE], axis=1),
            np.stack([-np.log(POSITIVE / (1 - POSITIVE)), np.zeros(8)], axis=1),
        ],
    )
    def test_roc_auc_is_of_the_scores_of_class_one(self, output: Any) -> None:
        assert value("roc_auc", output, BINARY) == pytest.approx(sk.roc_auc_score(BINARY, POSITIVE), abs=1e-12)
        assert value("roc_auc", output, BINARY) not in (0.0, 0.5, 1.0)

    def test_booleans_are_labels(self) -> None:
        assert value("accuracy", BINARY.astype(bool), BINARY) == 1.0
        assert value("accuracy", BINARY, BINARY.astype(bool)) == 1.0

    def test_the_positive_label_can_be_chosen(self) -> None:
        predicted = (POSITIVE > 0.5).astype(int)

        assert value("f1", predicted, BINARY, pos_label=0) == sk.f1_score(BINARY, predicted, pos_label=0)
        assert value("f1", predicted, BINARY, pos_label=0) != value("f1", predicted, BINARY)


class TestSeveralClasses:
    @pytest.mark.parametrize("output", [LOGITS, SOFTMAX, LOGITS.astype(np.float32), (LOGITS * 10).astype(np.int64)])
    @pytest.mark.parametrize("sub_type", [*OF_CLASSES, *AVERAGED])
    def test_the_class_is_the_largest_column(self, sub_type: str, output: Any) -> None:
        if sub_type in OF_CLASSES:
            expected = OF_CLASSES[sub_type](CLASSES, CHOSEN)
        else:
            expected = AVERAGED[sub_type](CLASSES, CHOSEN, average="macro")

        assert value(sub_type, output, CLASSES) == pytest.approx(expected, abs=1e-12)
        assert 0.5 < expected < 1

    @pytest.mark.parametrize("average", ["micro", "weighted", "macro"])
    @pytest.mark.parametrize("sub_type", AVERAGED)
    def test_the_average_can_be_chosen(self, sub_type: str, average: str) -> None:
        expected = AVERAGED[sub_type](CLASSES, CHOSEN, average=average)

        assert value(sub_type, LOGITS, CLASSES, average=average) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("sub_type", OF_CLASSES)
    def test_an_average_means_nothing_to_accuracy(self, sub_type: str) -> None:
        assert value(sub_type, LOGITS, CLASSES, average="micro") == OF_CLASSES[sub_type](CLASSES, CHOSEN)

    def test_accuracy_can_be_a_count(self) -> None:
        assert value("accuracy", LOGITS, CLASSES, normalize=False) == 8.0

    @pytest.mark.parametrize("output", [LOGITS, SOFTMAX])
    def test_roc_auc_is_one_against_the_rest_of_the_softmax(self, output: Any) -> None:
        expected = sk.roc_auc_score(CLASSES, SOFTMAX, multi_class="ovr")

        assert value("roc_auc", output, CLASSES) == pytest.approx(expected, abs=1e-12)

    def test_roc_auc_can_be_one_against_one(self) -> None:
        expected = sk.roc_auc_score(CLASSES, SOFTMAX, multi_class="ovo", average="weighted")

        assert value("roc_auc", LOGITS, CLASSES, multi_class="ovo", average="weighted") == pytest.approx(expected, abs=1e-12)

    def test_roc_auc_of_large_logits_does_not_overflow(self) -> None:
        expected = sk.roc_auc_score(CLASSES, np.eye(3)[CHOSEN], multi_class="ovr")

        assert value("roc_auc", 10_000 * LOGITS, CLASSES) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("sub_type", [*OF_CLASSES, *AVERAGED])
    @pytest.mark.parametrize("shape", [(10,), (10, 1)])
    def test_integers_are_labels(self, sub_type: str, shape: tuple[int, ...]) -> None:
        output = np.array(CHOSEN, np.int64).reshape(shape)

        assert value(sub_type, output, CLASSES) == value(sub_type, LOGITS, CLASSES)

    @pytest.mark.parametrize("sub_type", [*OF_CLASSES, *AVERAGED])
    def test_texts_are_labels(self, sub_type: str) -> None:
        names = np.array(["cat", "dog", "owl"])

        assert value(sub_type, names[CHOSEN], names[CLASSES]) == pytest.approx(value(sub_type, LOGITS, CLASSES))

    def test_a_class_that_nobody_predicts_counts_as_zero(self, recwarn: pytest.WarningsRecorder) -> None:
        assert value("precision", [0, 0, 1], [0, 1, 2]) == pytest.approx((0.5 + 0 + 0) / 3)
        assert not recwarn.list

    def test_classes_can_be_limited(self) -> None:
        expected = sk.recall_score(CLASSES, CHOSEN, labels=[0, 2], average="macro")

        assert value("recall", LOGITS, CLASSES, labels=[0, 2]) == pytest.approx(expected)


class TestSettings:
    @pytest.mark.parametrize(("written", "meant"), QUALITY_SUB_TYPES.items())
    def test_names_of_olive_and_scikit_learn_mean_the_same(self, written: str, meant: str) -> None:
        assert value(written, SOFTMAX, CLASSES) == value(meant, SOFTMAX, CLASSES)

    def test_those_that_are_null_have_no_effect(self) -> None:
        settings = dict.fromkeys(("average", "labels", "pos_label", "threshold", "normalize", "multi_class"))

        for sub_type in ("f1", "accuracy", "roc_auc"):
            assert value(sub_type, SOFTMAX, CLASSES, **settings) == value(sub_type, SOFTMAX, CLASSES)
        assert value("f1", POSITIVE, BINARY, **settings) == value("f1", POSITIVE, BINARY)

    def test_those_that_only_olive_knows_have_no_effect(self) -> None:
        assert value("f1", LOGITS, CLASSES, task="multiclass", num_classes=3, top_k=1) == value("f1", LOGITS, CLASSES)

    def test_the_first_output_counts(self) -> None:
        labels = np.array(CHOSEN, np.int64)
        outputs = {"label": labels, "scores": np.zeros((10, 3))}

        assert quality(metric("accuracy"), outputs, CLASSES) == 0.8
        assert quality(metric("accuracy"), {"scores": LOGITS, "label": labels * 0}, CLASSES) == 0.8


class TestCustom:
    def value(self, path: Path, body: str, sub_type: str = "mine") -> float:
        path.write_text(f"import numpy as np\n\n\ndef mine(outputs, labels):\n    {body}\n")
        outputs = {"y": POSITIVE, "z": POSITIVE * 2}
        return quality(metric(sub_type, "custom", f"{path}:mine"), outputs, BINARY)

    def failure(self, path: Path, body: str, sub_type: str = "mine") -> str:
        with pytest.raises(EvaluationFailed) as caught:
            self.value(path, body, sub_type)
        return str(caught.value)

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ("return (outputs['y'] > 0.35).astype(int).tolist().count(1)", 5.0),
            ("return np.float32(outputs['z'][0] + labels.sum())", np.float32(5.2)),
            ("return np.array([0.25])[0]", 0.25),
            ("return {'mine': 0.5, 'other': 0.75}", 0.5),
            ("return True", 1.0),
        ],
    )
    def test_it_is_called_with_outputs_and_labels(self, tmp_path: Path, body: str, expected: float) -> None:
        assert self.value(tmp_path / "metrics.py", body) == pytest.approx(expected)

    def test_of_several_numbers_the_one_of_the_sub_type_counts(self, tmp_path: Path) -> None:
        assert self.value(tmp_path / "metrics.py", "return {'mine': 0.5, 'other': 0.75}", "other") == 0.75

    def test_one_that_does_not_return_the_number_fails(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.py"

        assert self.failure(path, "return {'a': 1, 'b': 2}") == f"{path}:mine returned a, b, and no mine"

    def test_one_that_raises_fails_with_what_it_raised(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.py"

        assert self.failure(path, "return outputs['w']") == f"{path}:mine raised KeyError: 'w'"

    @pytest.mark.parametrize("result", ["None", "'much'", "[1, 2]", "outputs['y']", "{'mine': None}"])
    def test_one_that_returns_no_number_fails(self, tmp_path: Path, result: str) -> None:
        assert self.failure(tmp_path / "metrics.py", f"return {result}").startswith("mine-mine cannot be computed: ")

    def test_one_cannot_replace_an_output_for_the_next(self, tmp_path: Path) -> None:
        outputs = {"y": POSITIVE}
        (tmp_path / "metrics.py").write_text("def mine(outputs, labels):\n    outputs.clear()\n    return 1\n")

        quality(metric("mine", "custom", f"{tmp_path / 'metrics.py'}:mine"), outputs, BINARY)

        assert list(outputs) == ["y"]


class TestFailures:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("sub_type", ["accuracy", "roc_auc"])
    def test_outputs_that_are_not_finite_are_counted(self, sub_type: str, bad: float) -> None:
        scores = LOGITS.copy()
        scores[2:5, 1] = bad

        with pytest.raises(EvaluationFailed, match="3 values of its output 'scores' are not finite"):
            quality(metric(sub_type), {"label": CLASSES, "scores": scores}, CLASSES)

    @pytest.mark.parametrize(
        ("output", "labels", "reason"),
        [
            (LOGITS[:9], CLASSES, "inconsistent numbers of samples"),
            (np.zeros((10, 3, 2)), CLASSES, r"an output of shape \(10, 3, 2\) is neither labels nor scores per class"),
            (np.float64(3.0), CLASSES, r"an output of shape \(\) is neither labels nor scores per class"),
            (LOGITS, CLASSES.astype(str), "mine-accuracy cannot be computed"),
            (LOGITS, np.eye(3)[CLASSES], "mine-accuracy cannot be computed"),
            (LOGITS, np.where(CLASSES == 0, np.nan, CLASSES), "mine-accuracy cannot be computed: Input.* contains NaN"),
            (np.zeros((10, 0)), CLASSES, "mine-accuracy cannot be computed"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
    def test_outputs_that_do_not_fit_the_labels_fail(self, output: Any, labels: Any, reason: str) -> None:
        with pytest.raises(EvaluationFailed, match=reason):
            value("accuracy", output, labels)

    def test_a_threshold_that_is_no_number_fails(self) -> None:
        with pytest.raises(EvaluationFailed, match="mine-f1 cannot be computed: could not convert string to float: 'half'"):
            value("f1", POSITIVE, BINARY, threshold="half")

    @pytest.mark.filterwarnings("ignore:Only one class is present")
    def test_roc_auc_without_a_second_class_is_no_number(self) -> None:
        assert math.isnan(value("roc_auc", POSITIVE, np.ones(8, int)))

    def test_roc_auc_of_labels_instead_of_scores_per_class_fails(self) -> None:
        with pytest.raises(EvaluationFailed, match="mine-roc_auc cannot be computed"):
            value("roc_auc", np.array(CHOSEN), CLASSES)


def interval(sub_type: str, output: Any, labels: Any, confidence: float = 0.99, /, **settings: Any) -> Interval:
    found = quality_interval(metric(sub_type, **settings), {"y": np.asarray(output)}, np.asarray(labels), confidence)
    assert found is not None
    return found


def difference(sub_type: str, ours: Any, theirs: Any, labels: Any, confidence: float = 0.99, /, **settings: Any) -> Interval:
    first, second = ({"y": np.asarray(output)} for output in (ours, theirs))
    found = quality_difference_interval(metric(sub_type, **settings), first, second, np.asarray(labels), confidence)
    assert found is not None
    return found


def judgements(seed: int, n: int, hit: float, classes: int = 3) -> tuple[Any, Any]:
    """Return labels, and predictions that are right with a probability of `hit` and else any other class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    wrong = (labels + random.integers(1, classes, n)) % classes
    return labels, np.where(random.random(n) < hit, labels, wrong)


LABELS, PREDICTED = judgements(0, 300, 0.8)
DRAWN = ["balanced_accuracy", "f1", "precision", "recall"]


class TestInterval:
    @pytest.mark.parametrize("shape", [(300,), (300, 1)])
    def test_of_accuracy_is_that_of_a_share(self, shape: tuple[int, ...]) -> None:
        hits = int((LABELS == PREDICTED).sum())

        assert interval("accuracy", PREDICTED, LABELS.reshape(shape)) == share_interval(hits, 300)
        assert interval("accuracy_score", PREDICTED, LABELS, 0.9) == share_interval(hits, 300, 0.9)

    def test_of_a_count_is_one_of_counts(self) -> None:
        low, high = interval("accuracy", PREDICTED, LABELS, normalize=False)

        assert 200 < low < (LABELS == PREDICTED).sum() < high < 300
        expected = share_interval(int((LABELS == PREDICTED).sum()), 300)
        assert (low / 300, high / 300) == pytest.approx(expected, abs=0.02)

    @pytest.mark.parametrize("sub_type", DRAWN)
    def test_of_averages_over_classes_has_the_value_in_it_and_is_about_as_wide_as_that_of_accuracy(self, sub_type: str) -> None:
        low, high = interval(sub_type, PREDICTED, LABELS)
        share = share_interval(int((LABELS == PREDICTED).sum()), 300)

        assert low < value(sub_type, PREDICTED, LABELS) < high
        assert high - low == pytest.approx(share.high - share.low, rel=0.3)

    @pytest.mark.parametrize("sub_type", ["f1"])
    def test_of_samples_that_are_counted_together_is_that_of_each_drawn_alone(self, sub_type: str) -> None:
        random = np.random.default_rng(20240917)
        draws = random.integers(0, 300, (500, 300))
        function = AVERAGED[sub_type]
        alone = [function(LABELS[draw], PREDICTED[draw], average="macro", zero_division=0.0) for draw in draws]

        assert interval(sub_type, PREDICTED, LABELS) == pytest.approx(tuple(np.percentile(alone, [0.5, 99.5])))

    def test_of_roc_auc_is_of_the_scores(self) -> None:
        random = np.random.default_rng(1)
        labels = random.integers(0, 2, 300)
        scores = labels + random.normal(0, 1, 300)

        low, high = interval("roc_auc", scores, labels)

        auc = sk.roc_auc_score(labels, scores)
        error = math.sqrt(auc * (1 - auc) / (300 / 4))  # of the order of Hanley and McNeil's
        assert low < auc < high
        assert 0.5 * error < high - low < 4 * error
        assert interval("roc_auc", np.stack([-scores, scores], axis=1), labels) == pytest.approx((low, high), abs=0.01)

    def test_of_several_classes_leaves_draws_without_one_out(self) -> None:
        labels = np.array([0, 1, 2] * 20 + [2])

        scores = np.eye(3)[labels] + np.random.default_rng(1).normal(0, 0.5, (61, 3))
        low, high = interval("roc_auc", scores, labels)

        assert low < value("roc_auc", scores, labels) < high

    def test_of_a_class_that_is_rarely_drawn_stays_that_of_several_classes(self) -> None:
        labels = np.array([0] * 30 + [1] * 29 + [2])
        predicted = np.array([0] * 20 + [1] * 10 + [1] * 29 + [2])

        draws = np.random.default_rng(20240917).integers(0, 60, (500, 60))
        macro = [sk.f1_score(labels[draw], predicted[draw], average="macro", zero_division=0.0) for draw in draws]
        assert any(2 not in labels[draw] for draw in draws)
        assert interval("f1", predicted, labels) == pytest.approx(tuple(np.percentile(macro, [0.5, 99.5])))

    @pytest.mark.filterwarnings("ignore:Only one class is present")
    def test_there_is_none_where_most_draws_mean_nothing(self) -> None:
        labels, scores = np.array([0, 1]), np.array([0.1, 0.9])

        assert quality_interval(metric("roc_auc"), {"y": scores}, labels) is None
        assert quality_difference_interval(metric("roc_auc"), {"y": scores}, {"y": scores}, labels) is None

    @pytest.mark.parametrize("found", [metric("mine", "custom", "metrics.py:mine"), metric("accuracy")])
    def test_there_is_none_of_a_custom_metric_or_of_a_single_sample(self, found: Metric) -> None:
        n = 1 if found.type == "accuracy" else 300

        assert quality_interval(found, {"y": PREDICTED[:n]}, LABELS[:n]) is None
        assert quality_difference_interval(found, {"y": PREDICTED[:n]}, {"y": PREDICTED[:n]}, LABELS[:n]) is None

    @pytest.mark.parametrize("sub_type", ["accuracy", "f1"])
    def test_follows_the_threshold(self, sub_type: str) -> None:
        scores = np.random.default_rng(3).random(200)
        labels = (scores > 0.8).astype(int)

        assert interval(sub_type, scores, labels, threshold=0.8).high == pytest.approx(1.0)
        assert interval(sub_type, scores, labels).high < 0.9


class TestDifference:
    @pytest.mark.parametrize("shape", [(300,), (300, 1)])
    def test_of_accuracies_is_of_the_samples_on_which_one_is_right_alone(self, shape: tuple[int, ...]) -> None:
        better = np.where(np.arange(300) % 10 == 0, LABELS, PREDICTED)
        only_better = int(((better == LABELS) & (PREDICTED != LABELS)).sum())

        found = difference("accuracy", better, PREDICTED, LABELS.reshape(shape))

        assert only_better > 0
        assert found == paired_share_interval(only_better, 0, 300)
        assert difference("accuracy", PREDICTED, better, LABELS, 0.9) == paired_share_interval(0, only_better, 300, 0.9)

    @pytest.mark.parametrize("sub_type", ["f1", "balanced_accuracy"])
    def test_of_others_is_found_on_the_same_samples_for_both(self, sub_type: str) -> None:
        better = np.where(np.arange(300) % 8 == 0, LABELS, PREDICTED)

        low, high = difference(sub_type, better, PREDICTED, LABELS)

        assert 0 < low < value(sub_type, better, LABELS) - value(sub_type, PREDICTED, LABELS) < high
        assert difference(sub_type, PREDICTED, better, LABELS) == pytest.approx((-high, -low))
        assert difference(sub_type, better, PREDICTED, LABELS, 0.8).low > low

    def test_of_roc_aucs_is_of_the_scores(self) -> None:
        random = np.random.default_rng(1)
        labels = random.integers(0, 2, 300)
        scores = labels + random.normal(0, 1, 300)
        worse = scores + random.normal(0, 1, 300)

        low, high = difference("roc_auc", scores, worse, labels)

        assert 0 < low < sk.roc_auc_score(labels, scores) - sk.roc_auc_score(labels, worse) < high

    @pytest.mark.parametrize("sub_type", ["f1"])
    def test_of_a_candidate_and_itself_is_none(self, sub_type: str) -> None:
        scores = np.eye(3)[PREDICTED]

        assert difference(sub_type, scores, scores, LABELS) == (0.0, 0.0)

    def test_of_candidates_that_are_as_good_has_zero_in_it(self) -> None:
        found = []
        for seed in range(200):
            labels, ours = judgements(seed, 150, 0.8)
            right = np.random.default_rng([seed, 1]).random(150) < 0.8
            found.append(difference("accuracy", ours, np.where(right, labels, (labels + 1) % 3), labels))

        assert sum(low <= 0 <= high for low, high in found) >= 194
