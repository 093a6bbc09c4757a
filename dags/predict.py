"""One DAG `predict_<name>` for each file of `pipelines/`: the champion on images without labels."""

from nightshift.airflow import predict

globals().update(predict.dags(__file__))
