"""Shows in Airflow's list of DAG import errors what is wrong with pipeline files and variables.

The other files make the DAGs of all pipelines that can be read, and leave out the rest: so one malformed
file breaks only its own DAGs, and visibly.
"""

import notices
import predict
import promote
import retrain
import sweep
import wiring
from nightshift.errors import InputError

errors = wiring.pipelines()[1]
for module in (retrain, promote, predict, sweep):
    errors += module.refused
for read in (notices.channels, wiring.retry_seconds):
    try:
        read()
    except InputError as error:
        errors.append(error)
if errors:
    raise errors[0] if len(errors) == 1 else InputError("\n".join(map(str, errors)))
