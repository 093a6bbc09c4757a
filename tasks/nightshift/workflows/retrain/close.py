"""The end of every night, good or bad: close its MLflow run with the reason."""

from pydantic import BaseModel

from nightshift.records.specs import CloseSpec
from nightshift.tracking import runs


class Closed(BaseModel):
    status: str
    reason: str


def close(spec: CloseSpec) -> Closed:
    """End the run as FINISHED or FAILED."""
    runs.close_run(spec.mlflow_run_id, failed=spec.failed, reason=spec.reason)
    status = "FAILED" if spec.failed else "FINISHED"
    print(f"MLflow run {spec.mlflow_run_id} is closed as {status}: {spec.reason}")
    return Closed(status=status, reason=spec.reason)
