"""Steps of the DAGs around the five stages, one folder for each DAG."""
