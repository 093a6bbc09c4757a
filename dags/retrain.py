"""One DAG `retrain_<name>` for each file of `pipelines/`: a night from new batches to a registered model."""

from nightshift.airflow import retrain

globals().update(retrain.dags(__file__))
