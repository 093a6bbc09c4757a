"""The DAGs as Airflow sees them: shape, queues, the form, and what one malformed pipeline file does."""

import json
import sys

import pytest
from dag_files import DAGS

from nightshift.config import STAGE_SETTINGS, TrainSettings
from nightshift.config.pipelines import load_pipeline, override
from nightshift.errors import InputError
from nightshift.records import Artifact, FailedCandidate, InitialWeights
from nightshift.records.specs import EvaluateSpec, SweepSpec
from nightshift.workflows.sweep.search_space import parse

NAMES = sorted(path.stem for path in (DAGS / "pipelines").glob("*.toml"))


@pytest.fixture(scope="module")
def retrain(airflow_home):
    from nightshift.airflow import retrain

    return {name: retrain.dag_of(load_pipeline(DAGS / "pipelines" / f"{name}.toml")) for name in NAMES}


@pytest.fixture(scope="module")
def promote(airflow_home):
    from nightshift.airflow import promote

    return {name: promote.dag_of(load_pipeline(DAGS / "pipelines" / f"{name}.toml")) for name in NAMES}


@pytest.fixture(scope="module")
def sweep(airflow_home):
    from nightshift.airflow import sweep

    return {name: sweep.dag_of(load_pipeline(DAGS / "pipelines" / f"{name}.toml")) for name in NAMES}


@pytest.fixture(scope="module")
def predict(airflow_home):
    from nightshift.airflow import predict

    return {name: predict.dag_of(load_pipeline(DAGS / "pipelines" / f"{name}.toml")) for name in NAMES}


def edges(dag) -> dict[str, set[str]]:
    return {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}


def test_shipped_pipelines_are_there():
    assert {"digits", "cifar10", "photos", "tiny"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_night_has_the_stages_in_order(retrain, name):
    dag = retrain[name]
    assert dag.dag_id == f"retrain_{name}"
    stages = ["plan", "preprocess", "assemble", "train", "quantize", "evaluate", "register", "close"]
    assert [task.task_id for task in dag.topological_sort() if task.task_id in stages] == stages
    assert {task.task_id for task in dag.tasks} - set(stages) == {"members", "recipes"}
    assert edges(dag)["plan"] == {"preprocess", "members", "recipes"}
    assert edges(dag)["members"] == {"train"}
    assert edges(dag)["recipes"] == {"quantize"}
    assert edges(dag)["train"] == {"quantize", "evaluate", "register"}
    assert edges(dag)["register"] == {"close"}


@pytest.mark.parametrize("name", NAMES)
def test_a_prediction_is_mapped_and_waits_for_champions_and_uploads(predict, name):
    dag = predict[name]
    assert dag.dag_id == f"predict_{name}"
    assert edges(dag) == {"look": {"predict"}, "predict": {"summarise"}, "summarise": set()}
    assert {task.task_id for task in dag.tasks if task.is_mapped} == {"predict"}
    assert dag.get_task("predict").queue == "preprocess"
    assert dag.max_active_runs == 1
    events = {each.name for each in dag.timetable.asset_condition.objects}
    assert events == {f"{name}-champion", f"{name}-unlabelled"}
    (outlet,) = dag.get_task("summarise").outlets
    assert outlet.name == f"{name}-predictions"


def test_what_nobody_told_of_is_predicted_at_midnight(predict):
    assert predict["tiny"].timetable.timetable.expression == "0 0 * * *"


def test_a_prediction_also_keeps_the_times_of_the_file(airflow_home):
    from nightshift.airflow import predict

    pipeline = load_pipeline(DAGS / "pipelines" / "digits.toml")
    policy = pipeline.predict.model_copy(update={"schedule": "@hourly"})
    dag = predict.dag_of(pipeline.model_copy(update={"predict": policy}))
    assert type(dag.timetable).__name__ == "AssetOrTimeSchedule"
    assert dag.timetable.timetable.expression == "0 * * * *"


def test_what_a_person_asks_of_a_prediction_reaches_the_look(predict, monkeypatch):
    module = sys.modules["nightshift.airflow.predict"]
    specs, pushed = [], {}

    class Instance:
        def xcom_push(self, key: str, value: dict) -> None:
            pushed[key] = value

    def run(stage, spec):
        specs.append((stage, spec))
        return {"messages": [{"parts": 1}]}

    monkeypatch.setattr(module, "run", run)
    look = predict["digits"].get_task("look").python_callable
    assert look({"version": "3", "batches": ["b1"]}, "by hand", Instance()) == [{"parts": 1}]
    ((stage, spec),) = specs
    assert (stage, spec.version, spec.batches, spec.run) == ("look", "3", ("b1",), "by hand")
    assert pushed == {"forecast": {"messages": [{"parts": 1}]}}
    look({"version": None, "batches": None}, "by event", Instance())
    assert (specs[1][1].version, specs[1][1].batches) == ("", ())


def test_mapped_stages_and_their_queues(retrain):
    dag = retrain["digits"]
    mapped = {task.task_id for task in dag.tasks if task.is_mapped}
    assert mapped == {"preprocess", "train", "quantize"}
    queues = {task.task_id: task.queue for task in dag.tasks}
    assert queues["preprocess"] == "preprocess"
    assert {queues[name] for name in ("train", "quantize", "evaluate")} == {"train"}
    assert {queues[name] for name in ("plan", "assemble", "register", "close")} == {"default"}


@pytest.mark.parametrize(
    ("members", "vote", "names"),
    [
        (1, "both", ["fp32", "int8"]),
        (3, "none", ["fp32", "int8"]),
        (3, "hard", ["fp32", "int8", "fp32-hard-vote", "int8-hard-vote"]),
    ],
)
def test_quantize_is_mapped_over_recipes_and_votes(
    airflow_home, ml_ensemble, monkeypatch, members, vote, names
):
    from nightshift.airflow import retrain as module

    plan = ml_ensemble.plan
    changes = {"train.members": members, "quantize.vote": vote}
    plan = plan.model_copy(update={"pipeline": override(plan.pipeline, changes)})
    specs = []
    monkeypatch.setattr(module, "planned_now", lambda: plan)
    monkeypatch.setattr(module, "run", lambda stage, spec: specs.append(spec))
    checkpoints = [member.model_dump(mode="json") for member in ml_ensemble.members[:members]]
    for recipe in module.recipes.function():
        module.quantize.function(json.loads(json.dumps(recipe)), checkpoints)
    assert [spec.name for spec in specs] == names
    assert [len(spec.checkpoints) for spec in specs] == [members if spec.vote else 1 for spec in specs]


def test_evaluate_is_told_what_was_made_and_what_was_not(airflow_home, ml_night, monkeypatch):
    from nightshift.airflow import retrain as module

    made, unmade = ml_night.candidates["fp32"], FailedCandidate(recipe="int8", reason="no room")
    specs, pushed = [], {}

    class Instance:
        def xcom_push(self, key: str, value: str) -> None:
            pushed[key] = value

    def run(stage, spec):
        specs.append(spec)
        return {"page": "http://mlflow/report"}

    monkeypatch.setattr(module, "planned_now", lambda: ml_night.plan)
    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "get_current_context", lambda: {"ti": Instance()})
    returned = [each.model_dump(mode="json") for each in (made, unmade)]
    module.evaluate.function([], returned, {"dataset_uri": ml_night.dataset_uri, "drifts": []})
    assert specs[0].candidates == (made, unmade)
    assert pushed == {"report_url": "http://mlflow/report"}
    assert EvaluateSpec.model_validate_json(specs[0].model_dump_json()) == specs[0]


@pytest.mark.parametrize("name", NAMES)
def test_evaluate_leads_to_its_report(retrain, name):
    class Instance:
        task_id = "evaluate"

        def xcom_pull(self, task_ids: str, key: str) -> str:
            return f"http://mlflow/{task_ids}/{key}"

    evaluate = retrain[name].get_task("evaluate")
    (link,) = evaluate.operator_extra_links
    assert link.name == "Report"
    assert link.get_link(evaluate, ti_key=Instance()) == "http://mlflow/evaluate/report_url"


def test_retries_timeouts_and_the_teardown(retrain):
    dag = retrain["digits"]
    assert dag.max_active_runs == 1
    for task in dag.tasks:
        arguments = task.partial_kwargs if task.is_mapped else vars(task)
        assert arguments["retries"] == 3
        assert arguments["retry_exponential_backoff"]
        assert arguments["execution_timeout"] is not None
    close = dag.get_task("close")
    assert close.is_teardown
    assert not close.on_failure_fail_dagrun


def test_no_task_has_a_copy_of_the_form(airflow_home):
    """Airflow checks each copy twice when it reads the file: with a hundred settings that took seconds."""
    from nightshift.airflow import retrain as module

    made = module.dags(str(DAGS / "retrain.py"))
    assert set(made) == {f"retrain_{name}" for name in NAMES}
    for dag in made.values():
        assert len(dag.params) > 90
        for task in dag.tasks:
            assert not task.params
            assert not (task.is_mapped and task.partial_kwargs["params"])


def test_the_schedule_is_the_files(retrain):
    assert retrain["digits"].timetable.expression == "0 2 * * *"
    assert retrain["photos"].schedule is None


def test_every_setting_is_in_the_form_with_its_help_and_the_files_value(retrain):
    pipeline = load_pipeline(DAGS / "pipelines" / "digits.toml")
    params = retrain["digits"].params
    names = {f"{stage}.{field}" for stage, model in STAGE_SETTINGS.items() for field in model.model_fields}
    assert set(params) == names | {"force"}
    for stage, model in STAGE_SETTINGS.items():
        for field in model.model_fields:
            param = params.get_param(f"{stage}.{field}")
            value = getattr(getattr(pipeline, stage), field)
            assert param.value == (list(value) if isinstance(value, tuple) else value)
            assert len(param.description) > 10
            assert not {"anyOf", "$ref", "allOf"} & set(param.schema)


def test_about_a_dozen_settings_stand_open_and_come_first(retrain):
    params = retrain["digits"].params
    sections = [params.get_param(name).schema.get("section") for name in params]
    opened = [section for section in sections if section is None]
    assert 10 <= len(opened) <= 16
    assert sections[: len(opened)] == opened
    assert set(sections[len(opened) :]) == {"Advanced"}


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("train.epochs", 0, "less than the minimum of 1"),
        ("train.epochs", "many", "not of type 'integer'"),
        ("train.model", "vgg", "not one of"),
        ("quantize.recipes", ["int3"], "not one of"),
    ],
)
def test_the_form_refuses_values_outside_their_range(retrain, name, value, why):
    param = retrain["digits"].params.get_param(name)
    with pytest.raises(ValueError, match=why):
        param.resolve(value)


def test_training_starts_from_the_weights_of_the_plan(retrain, ml_night, monkeypatch):
    module = sys.modules["nightshift.airflow.retrain"]
    weights = Artifact(uri="s3://nightshift/model.safetensors", sha256="a" * 64, size=3)
    start = InitialWeights(name="models:/tiny/3", weights=weights)
    monkeypatch.setattr(module, "planned_now", lambda: ml_night.plan.model_copy(update={"start": start}))
    monkeypatch.setattr(module, "run", lambda stage, spec: {"stage": stage, "start": spec.start})
    assert module.train.function(0, {"dataset_uri": "file:///d"}) == {"stage": "train", "start": start}


@pytest.mark.parametrize("name", NAMES)
def test_promotion_asks_a_person_when_the_file_says_so(promote, name):
    mode = load_pipeline(DAGS / "pipelines" / f"{name}.toml").promotion.mode
    order = [task.task_id for task in promote[name].topological_sort()]
    approve = ["ask", "approve"] if mode == "approve" else []
    assert order == ["check", *approve, "decide", "move", "announce"]
    assert promote[name].get_task("move").pool == "promotion"


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_is_started_by_hand_and_concluded_although_trials_fail(sweep, name):
    dag = sweep[name]
    assert dag.dag_id == f"sweep_{name}"
    assert dag.schedule is None
    assert edges(dag) == {"prepare": {"trial", "conclude"}, "trial": {"conclude"}, "conclude": set()}
    trial = dag.get_task("trial")
    assert trial.is_mapped
    assert (trial.queue, trial.partial_kwargs["pool"]) == ("train", "train")
    assert trial.partial_kwargs["retries"] == 3
    assert dag.get_task("conclude").trigger_rule == "all_done_min_one_success"


def test_the_form_of_a_sweep_has_the_training_and_what_to_try(sweep):
    pipeline = load_pipeline(DAGS / "pipelines" / "digits.toml")
    params = sweep["digits"].params
    assert set(params) == {"over", "trials", *(f"train.{field}" for field in TrainSettings.model_fields)}
    assert params["train.epochs"] == pipeline.train.epochs
    assert len(parse(params["over"], pipeline)) == 1
    SweepSpec(pipeline=pipeline, name="n", over=params["over"], trials=params["trials"])
    with pytest.raises(ValueError, match="greater than the maximum of 256"):
        params.get_param("trials").resolve(257)
    with pytest.raises(ValueError, match="not of type 'string'"):
        params.get_param("over").resolve([3])


def test_one_malformed_file_breaks_only_its_own_dag_and_visibly(airflow_home, tmp_path):
    from nightshift.airflow import import_errors
    from nightshift.airflow.pipelines import pipelines

    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "good.toml").write_text('description = "fine"\n')
    (folder / "bad.toml").write_text("[train]\nepochs = 0\n")
    for place in (folder, tmp_path / "retrain.py"):  # the folder itself, or a DAG file beside it
        good, bad = pipelines(str(place))
        assert [pipeline.name for pipeline in good] == ["good"]
        assert "bad.toml, line 2: train.epochs" in str(bad[0])
        with pytest.raises(
            InputError, match=r"bad\.toml, line 2: train\.epochs: .*greater than or equal to 1, got 0"
        ):
            import_errors.check(str(place))


def test_promotion_uses_the_events_newest_challenger(airflow_home, monkeypatch):
    from nightshift.airflow import promote as module
    from nightshift.airflow.pipelines import asset

    class Event:
        def __init__(self, timestamp: int, version: str) -> None:
            self.timestamp, self.extra = timestamp, {"version": version, "sha256": version * 64}

    challenger = asset("x", "challenger")
    context = {"run_id": "r", "triggering_asset_events": {challenger: [Event(2, "7"), Event(1, "6")]}}
    monkeypatch.setattr(module, "get_current_context", lambda: context)
    empty = {"version": None, "action": "promote", "reason": ""}
    asked = module.requested("x", {"manual_moves": "put_back", "asks": "first"}, empty)
    assert (asked.version, asked.only_challenger, asked.run) == ("7", True, "r")
    assert (asked.manual_moves, asked.asks) == ("put_back", "first")


POLICY = {"manual_moves": "report", "asks": "never"}


def test_an_event_says_which_version_and_no_more(airflow_home, monkeypatch):
    """Whoever may write assets by the REST API sends events with whatever extra they like."""
    from nightshift.airflow import promote as module
    from nightshift.airflow.pipelines import asset

    class Event:
        timestamp = 1

    event, challenger = Event(), asset("x", "challenger")
    context = {"run_id": "r", "triggering_asset_events": {challenger: [event]}}
    monkeypatch.setattr(module, "get_current_context", lambda: context)
    empty = {"version": None, "action": "promote", "reason": ""}
    offered = {"version": "7", "sha256": "7" * 64}
    foreign = {
        "action": "move",
        "pipeline": "y",
        "by": "ada",
        "intent": "roll back",
        "manual_moves": "put_back",
    }
    event.extra = {**offered, **foreign, "only_challenger": False, "run": "other", "reason": "trust me"}
    asked = module.requested("x", POLICY, empty)
    event.extra = offered
    assert asked == module.requested("x", POLICY, empty)
    assert (asked.action, asked.pipeline, asked.by, asked.only_challenger) == ("check", "x", "policy", True)
    event.extra = foreign
    with pytest.raises(Exception, match="must name version and sha256, got action, pipeline"):
        module.requested("x", POLICY, empty)


def test_what_a_person_asks_for_in_the_form_comes_before_events(airflow_home, monkeypatch):
    from nightshift.airflow import promote as module

    class Run:
        triggering_user_name = "ada"

    context = {"run_id": "r", "triggering_asset_events": {}, "dag_run": Run()}
    monkeypatch.setattr(module, "get_current_context", lambda: context)
    asked = module.requested("x", POLICY, {"version": None, "action": "roll back", "reason": "too slow"})
    assert (asked.version, asked.intent, asked.by, asked.reason) == ("", "roll back", "ada", "too slow")
    assert not asked.only_challenger
    with pytest.raises(Exception, match="no version was given"):
        module.requested("x", POLICY, {"version": None, "action": "promote", "reason": None})
    asked = module.requested("x", POLICY, {"version": "3", "action": "promote", "reason": None})
    assert asked.reason == ""


def test_the_form_of_a_promotion_can_be_sent_as_it_is(promote):
    params = promote["digits"].params
    assert set(params) == {"action", "version", "reason"}
    for name, value in params.items():
        required = "null" not in params.get_param(name).schema["type"]
        assert value or not required, name


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (None, "rejected"),  # the task that asks was marked as a success, or as skipped
        ({"chosen_options": ["Reject"], "responded_by_user": None}, "expired"),
        ({"chosen_options": ["Reject"], "responded_by_user": {"name": "ada"}}, "rejected"),
        ({"chosen_options": ["Approve"], "responded_by_user": {"name": "ada"}}, None),
    ],
)
def test_only_an_answer_goes_on_where_a_person_is_asked(airflow_home, monkeypatch, response, outcome):
    from nightshift.airflow import promote as module

    class Instance:
        def xcom_pull(self, task_ids: str) -> dict | None:
            return {"check": checked, "approve": response}[task_ids]

    checked = {
        **dict.fromkeys(module.KEPT),
        "intent": "promote",
        "version": "3",
        "ask": True,
        "asks": "first",
    }
    checked |= {"by": "policy", "sha256": "", "reason": "", "only_challenger": True, "run": "r"}
    checked |= {"manual_moves": "report", "approved": False}
    specs = []
    monkeypatch.setattr(module, "get_current_context", lambda: {"ti": Instance()})
    monkeypatch.setattr(module.notifications, "tell", lambda text: None)
    monkeypatch.setattr(module, "run", lambda stage, spec: specs.append(spec) or {"reason": "no"})
    decided = module.decide.function("x")
    assert [spec.outcome for spec in specs] == ([outcome] if outcome else [])
    assert (decided.get("approved"), decided.get("by")) == ((None, None) if outcome else (True, "ada"))
    if response is None:
        assert "without an answer, which is a refusal" in specs[0].reason


def test_what_has_no_result_moves_nothing(airflow_home, monkeypatch):
    from nightshift.airflow import promote as module

    class Instance:
        def xcom_pull(self, task_ids: str) -> None:
            return None

    monkeypatch.setattr(module, "get_current_context", lambda: {"ti": Instance()})
    for task in (module.ask, module.decide, module.move):
        with pytest.raises(Exception, match="has no result, so nothing is moved"):
            task.function(*([] if task is module.ask else ["x"]))


def test_the_first_champion_can_ask_a_person_although_others_do_not(promote):
    pipeline = load_pipeline(DAGS / "pipelines" / "digits.toml")
    policy = pipeline.promotion.model_copy(update={"first_champion": "approve"})
    dag = sys.modules["nightshift.airflow.promote"].dag_of(pipeline.model_copy(update={"promotion": policy}))
    order = [task.task_id for task in dag.topological_sort()]
    assert order == ["check", "ask", "approve", "decide", "move", "announce"]
    assert dag.get_task("decide").trigger_rule == "none_failed"
