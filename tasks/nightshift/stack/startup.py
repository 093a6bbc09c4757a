"""Start roles in the order of their health: each one begins when all that it needs answers."""

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from nightshift.errors import NightshiftError
from nightshift.stack import airflow_api, health, prepare
from nightshift.stack.environment import Site
from nightshift.stack.roles import Role
from nightshift.stack.supervisor import ACTIVE, Program, Supervisor, last_lines, log_path

PATIENCE = 240.0  # seconds for one role; a first migration on a busy machine takes half a minute
DEATHS = 3  # a role that ended this often during its start will not come up
PARSE_PATIENCE = 30.0  # seconds for all pipeline files to be parsed
SETTLED = 6.0  # seconds without another file parsed: what is left defines no DAG


class InitialWeights:
    """One start: which roles wait, which were told to start, which are healthy."""

    def __init__(
        self, site: Site, supervisor: Supervisor, roles: tuple[Role, ...], say: Callable[[str], None]
    ) -> None:
        self.site = site
        self.supervisor = supervisor
        self.say = say
        self.began = time.monotonic()
        self.waiting = {role.name: role for role in roles}
        self.started: dict[str, float] = {}
        self.pids: dict[str, set[int]] = {role.name: set() for role in roles}
        self.begun: list[str] = []

    def run(self) -> int:
        """Return when every role is healthy how many of them had to be started.

        Raises NightshiftError naming the first one that cannot be started.
        """
        parses = "dag-processor" in self.waiting
        served = "api-server" in self.waiting
        with ThreadPoolExecutor(max_workers=8) as pool:
            while self.waiting:
                self._start_ready()
                programs = self.supervisor.programs()
                asked = [self.waiting[name] for name in self.started if name in self.waiting]
                reasons = pool.map(self._ask, asked, itertools.repeat(programs))
                for role, reason in zip(asked, reasons, strict=True):
                    self._judge(role, programs[role.name], reason)
                if self.waiting:
                    # The data stores answer in tenths of a second; Python servers take ten, and need the
                    # cores.
                    time.sleep(0.1 if time.monotonic() - self.began < 2 else 0.5)
        if served and self.begun:
            self._finish_airflow(parses)
        return len(self.begun)

    def _start_ready(self) -> None:
        programs = self.supervisor.programs()
        for name, role in self.waiting.items():
            if name in self.started or any(other in self.waiting for other in role.after):
                continue
            if programs[name].state not in ACTIVE:
                self.supervisor.start(name)
                self.begun.append(name)
            self.started[name] = time.monotonic()

    def _ask(self, role: Role, programs: Mapping[str, Program]) -> str | None:
        program = programs[role.name]
        if role.health.kind == "finished":
            return None if program.state == "EXITED" and program.exit_status == 0 else "it has not finished"
        if program.state not in ACTIVE:
            return "it does not run"
        return health.ask(role.health, self.site, program.started)

    def _judge(self, role: Role, program: Program, reason: str | None) -> None:
        if program.pid:
            self.pids[role.name].add(program.pid)
        if reason is None:
            del self.waiting[role.name]
            if role.name in self.begun:
                self.say(
                    f"{role.name} {'done' if role.group == 'once' else 'healthy'} after {self._seconds()}"
                )
            if role.name == "migrate":
                prepare.note_migrated(self.site)
            return
        broken = program.state == "FATAL" or (role.group == "once" and program.state == "EXITED")
        if broken or len(self.pids[role.name]) >= DEATHS:
            self._fail(
                role.name, f"its process ended ({program.state.lower()}, exit status {program.exit_status})"
            )
        if time.monotonic() - self.started[role.name] > PATIENCE:
            self._fail(role.name, f"it was not healthy after {PATIENCE:.0f} s ({reason})")

    def _fail(self, name: str, why: str) -> None:
        path = log_path(self.site.home, name)
        end = "\n".join(last_lines(path, 15)) or "(nothing was written)"
        raise NightshiftError(
            f"the server {name} did not start: {why}; read {path}, mend what it says, "
            f"then run `nightshift up` again. It ends with:\n{end}"
        )

    def _finish_airflow(self, parses: bool) -> None:
        with contextlib.closing(airflow_api.login(self.site)) as client:
            airflow_api.ensure_pools(client, self.site)
            if not parses:
                return
            since = self.supervisor.programs()["dag-processor"].started
            files = airflow_api.pipeline_files(self.site.dags)
            parsed: set[str] = set()
            changed = time.monotonic()
            deadline = changed + PARSE_PATIENCE
            while files - parsed and time.monotonic() < deadline:
                now = airflow_api.parsed_files(client, since)
                if now != parsed:
                    parsed, changed = now, time.monotonic()
                if parsed and time.monotonic() - changed > SETTLED:
                    break
                time.sleep(0.5)
        self.say(f"{len(parsed & files)} of {len(files)} pipeline files parsed after {self._seconds()}")

    def _seconds(self) -> str:
        return f"{time.monotonic() - self.began:.1f} s"
