"""One DAG `promote_<name>` for each file of `pipelines/`: who becomes champion."""

from nightshift.airflow import promote

globals().update(promote.dags(__file__))
