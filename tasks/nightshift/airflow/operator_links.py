"""Links of a task: from the night to what a person wants to see of it."""

from typing import Any

from airflow.sdk import BaseOperatorLink

REPORT = "report_url"  # XCom key under which evaluate leaves the address


class ReportLink(BaseOperatorLink):
    """From `evaluate` to the report in MLflow; Airflow keeps the address beside the task when it ends."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return str(ti_key.xcom_pull(task_ids=ti_key.task_id, key=REPORT) or "")
