"""Measure how float and quantized files answer for corrupted and attacked images; lines go to bench.json.

python tests/bench/robustness.py PIPELINE FOLDER [--images 1000] [--set train.noise=0.1 …]

PIPELINE and FOLDER are those of accuracy.py, whose trainings are found again. All families at all severities,
and FGSM and PGD made with the float network. `ratio` is a recipe's accuracy over that of fp32.
"""

import statistics
import sys

from accuracy import arguments, prepared
from evaluate import candidates
from night import record


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=1000)
    asked = parser.parse_args()
    full = {"evaluate.robustness": "full", "evaluate.robustness_images": asked.images}
    pipeline, uri = prepared(asked, full)

    from nightshift import storage
    from nightshift.data.dataset import load_split
    from nightshift.evaluation import contenders
    from nightshift.evaluation.robustness import assess
    from nightshift.models import ensemble
    from nightshift.records import Dataset

    ready = candidates(pipeline, uri)
    data = storage.read_record(ready.uri, Dataset)
    test = load_split(data, "test")
    images = test.images.numpy()
    there = {
        each.name: contenders.answered(
            contenders.of_candidate(storage.read_artifact(each.model), each, images, len(data.classes)),
            "onnxruntime",
            len(data.classes),
        )
        for each in ready.candidates
    }
    network = ensemble.restore((ready.checkpoint,), data, None, flip_tta=pipeline.quantize.flip_tta)
    tried = assess(there, network, test.labels.numpy(), data, pipeline.evaluate, 0)
    rows = {"unchanged": tried.clean}
    for family in dict.fromkeys(each.family for each in tried.corruptions):
        own = [each.accuracy for each in tried.corruptions if each.family == family]
        rows[family] = {name: statistics.mean(each[name] for each in own) for name in there}
    rows["mean of all corruptions"] = {name: tried.corrupted(name) for name in there}
    rows |= {f"{each.kind}, {each.epsilon:g} of 255": each.accuracy for each in tried.attacks}
    title = ", ".join([f"{asked.pipeline}, {tried.images} test images", *asked.set])
    for row, accuracy in rows.items():
        for name in there:
            if name != "fp32":
                record(f"{title}, {row}: {name}", 100 * accuracy[name], "%", "fp32", 100 * accuracy["fp32"])
    record(f"{title}: time", tried.seconds, "s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
