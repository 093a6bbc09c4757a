"""The DAG `upkeep` for all pipelines: what nothing needs any more is deleted, as `upkeep.toml` says."""

from nightshift.airflow import upkeep

globals().update(upkeep.dags(__file__))
