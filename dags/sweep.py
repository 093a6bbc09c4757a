"""One DAG `sweep_<name>` for each file of `pipelines/`: trainings with other settings."""

from nightshift.airflow import sweep

globals().update(sweep.dags(__file__))
