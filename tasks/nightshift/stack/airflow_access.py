"""Who may do what in a deployment's Airflow: roles and first people of its FAB auth manager.

The embedded stack has one administrator on loopback and Airflow's simple auth manager instead.
"""

from collections.abc import Mapping
from typing import Any, Final

# What a role may do beyond looking, as (action, resource) of FAB. Whoever changes anything of a DAG needs
# `can_edit` on DAGs too, which by itself lets them pause one.
ROLES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    # Starts nights, promotions and rollbacks, stops and clears tasks; does not answer what it started.
    "Operator": (
        ("can_edit", "DAGs"),
        ("can_create", "DAG Runs"),
        ("can_edit", "DAG Runs"),
        ("can_edit", "Task Instances"),
        ("can_create", "Assets"),
    ),
    # Answers what waits for a person; starts nothing.
    "Approver": (
        ("can_edit", "DAGs"),
        ("can_edit", "HITL Detail"),
        ("menu_access", "HITL Detail"),
    ),
}
# The first people, each with the role of its name. Others are made in the web interface, under Security.
PEOPLE: Final[Mapping[str, str]] = {
    "admin": "Admin",
    "operator": "Operator",
    "approver": "Approver",
    "viewer": "Viewer",
}


def ensure_access(passwords: Mapping[str, str]) -> list[str]:
    """Make the roles and the missing people; return whom it made. Airflow's database has to be migrated.

    Who exists keeps role and password: both may have been changed in the web interface.
    """
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as builder:
        manager = builder.sm
        manager.sync_roles()
        looking = manager.VIEWER_PERMISSIONS
        manager.bulk_sync_roles(
            [{"role": role, "perms": [*looking, *more]} for role, more in ROLES.items()],
        )
        return [name for name in PEOPLE if _make_person(manager, name, passwords[name])]


def _make_person(manager: Any, name: str, password: str) -> bool:
    if manager.find_user(username=name):
        return False
    role = manager.find_role(PEOPLE[name])
    return bool(manager.add_user(name, name, "nightshift", f"{name}@nightshift.invalid", role, password))
