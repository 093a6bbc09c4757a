"""`python -m nightshift <stage> --spec spec.json --result result.json`: one stage, as Airflow runs it.

Exit codes: 0 done, 2 the input is refused, 3 a service is away; then the result file holds {"error": …}.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import get_type_hints

from pydantic import BaseModel

from nightshift.errors import InputError, NightshiftError, OutageError
from nightshift.runner import OUTAGE, REFUSED, STAGES, die_with_parent
from nightshift.runner.json_logs import one_line


def main() -> int:
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m nightshift", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        result = call(arguments.stage, arguments.spec.read_text(encoding="utf-8"))
    except (InputError, OutageError) as error:
        arguments.result.write_text(json.dumps({"error": str(error)}), encoding="utf-8")
        print(one_line(f"ERROR {arguments.stage}: {error}"), flush=True)
        return REFUSED if isinstance(error, InputError) else OUTAGE
    except NightshiftError as error:
        print(one_line(f"ERROR {arguments.stage}: {error}"), flush=True)
        return 1
    arguments.result.write_text(result.model_dump_json(), encoding="utf-8")
    return 0


def call(stage: str, spec: str) -> BaseModel:
    """Call a stage's function with the spec that its signature asks for."""
    verb = getattr(importlib.import_module(STAGES[stage]), stage)
    kind: type[BaseModel] = get_type_hints(verb)["spec"]
    result: BaseModel = verb(kind.model_validate_json(spec))
    return result


if __name__ == "__main__":
    sys.exit(main())
