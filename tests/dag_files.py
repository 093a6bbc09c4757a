"""The folder of the DAG files, and a home of Airflow's that nothing else uses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

DAGS = Path(__file__).parent.parent / "dags"


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        yield
