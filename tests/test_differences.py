"""What differs, in rows and in the sentence."""

from some_conditions import CONDITIONS

from nightshift.provenance import differences
from nightshift.provenance.differences import MODEL, Comparison, equal


def told(results, changes, **others) -> str:
    now = CONDITIONS.model_copy(update={**changes, **others})
    rows = differences.conditions([(CONDITIONS, CONDITIONS), (CONDITIONS, now)])
    return differences.sentence("digits", "3", Comparison(results=results, conditions=rows))


WEIGHTS, MODELS = equal("weights of member 1", "a", "b"), equal(MODEL, "c", "d")
SAME = equal(MODEL, "c", "c")


def test_what_differs_first_is_named_with_every_condition_that_does():
    changes = {"threads": 2, "packages": {"torch": "2.1", "opencv": "5.0"}}
    assert told((WEIGHTS, MODELS), changes) == (
        "version 3 of digits is not reproduced: the weights of member 1 differ; "
        "the version of torch differs (2.0, now 2.0 and 2.1), the threads differ (1, now 1 and 2)"
    )


def test_the_same_bytes_are_reproduced_whatever_else_differs():
    assert told((SAME,), {"threads": 2}) == "version 3 of digits is reproduced: model.onnx has SHA-256 c"


def test_a_commit_of_the_same_bytes_is_no_other_code():
    code = CONDITIONS.code.model_copy(update={"commit": "f" * 40})
    (row, *_) = differences.conditions([(CONDITIONS, CONDITIONS.model_copy(update={"code": code}))])
    assert (row.what, row.same) == ("code", True)
    assert row.recorded != row.now
    other = code.model_copy(update={"sha256": "d" * 64})
    (row, *_) = differences.conditions([(CONDITIONS, CONDITIONS.model_copy(update={"code": other}))])
    assert not row.same


def test_an_accelerator_alone_is_reason_enough():
    cuda = CONDITIONS.model_copy(update={"device": "cuda"})
    rows = differences.conditions([(cuda, cuda)])
    said = differences.sentence("digits", "3", Comparison(results=(MODELS,), conditions=rows))
    assert said.endswith("no condition that is recorded differs, and sums on cuda come in no fixed order")
