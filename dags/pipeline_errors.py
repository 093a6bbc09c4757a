"""Shows malformed pipeline files in Airflow's list of DAG import errors; `retrain.py` leaves them out.

So one malformed file breaks only its own DAG, and visibly.
"""

from wiring import pipelines

_, errors = pipelines()
if errors:
    raise errors[0] if len(errors) == 1 else ExceptionGroup("malformed pipeline files", errors)
