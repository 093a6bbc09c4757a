"""What a night found out, made up, with the names that strangers give to classes and files."""

from nightshift.records import (
    Attack,
    Benchmark,
    ClassScores,
    Corruption,
    Curve,
    Evidence,
    Example,
    Paired,
    Reliability,
    Robustness,
    Slice,
)

HOSTILE = "<script>"


def scores_of(name: str, *, speed: Benchmark) -> ClassScores:
    row = {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "images": 12, "roc_auc": 0.99}
    return ClassScores(
        model=name,
        sha256="ab" * 32,
        images=24,
        accuracy=0.91,
        interval=(0.8, 0.97),
        top_k=0.98,
        k=3,
        precision=0.92,
        recall=0.93,
        f1=0.94,
        f1_interval=(0.85, 0.99),
        weighted_precision=0.92,
        weighted_f1=0.915,
        roc_auc=0.9876,
        average_precision=0.9765,
        brier=0.1234,
        calibration_error=0.0321,
        per_class={HOSTILE: row},
        confusion=((6, 0, 0, 0),) * 4,
        speed=speed,
    )


def example(**changes: object) -> Example:
    values = {
        "row": 3,
        "key": "batch/<x>.png",
        "label": "cat",
        "predicted": "dog",
        "confidence": 0.99,
        "own": 0.01,
    }
    return Example.model_validate({**values, **changes})


EVIDENCE = Evidence(
    reliability={"fp32": Reliability(confidence=(0.5, 0.9), accuracy=(0.4, 0.95), images=(4, 20))},
    curves=(
        Curve(
            name="$x$",
            false_positive_rate=(0, 1),
            true_positive_rate=(0, 1),
            recall=(1, 0),
            precision=(0.5, 1),
            roc_auc=0.5,
            average_precision=0.5,
        ),
    ),
    paired={
        "champion": Paired(images=24, wins=3, losses=1, difference=2 / 24, low=-0.05, high=0.2, p_value=0.625)
    },
    slices=(Slice(column="camera", value="<b>old</b>", images=7, accuracy={"fp32": 0.857}),),
    hardest=(example(predicted="cat", own=0.4),),
    confidently_wrong=(example(label="$x$"),),
    suspects=(example(),),
    robustness=Robustness(
        images=20,
        clean={"fp32": 0.95, "champion": 0.94},
        corruptions=(
            Corruption(family="fog", severity=2, accuracy={"fp32": 0.9, "champion": 0.8}),
            Corruption(family="snow_storm", severity=5, accuracy={"fp32": 0.6, "champion": 0.5}),
        ),
        attacks=(Attack(kind="pgd", epsilon=2, accuracy={"fp32": 0.4}),),
        seconds=1,
    ),
)
