"""DAGs of the pipelines, built for whatever Airflow takes them in: two lines in a DAG file."""
