"""Shows in Airflow's list of DAG import errors what is wrong with pipeline files and variables."""

from nightshift.airflow import import_errors

import_errors.check(__file__)  # of a DAG: none
