#!/bin/sh
# Runs a command with MLflow's basic auth configured: the template and the database, in which logins have
# tables of their own, make the configuration, which only this user can read.
set -eu
umask 077
: "${MLFLOW_BACKEND_STORE_URI:?set it to the address of the database}"
config=$(mktemp)
{
  cat "${MLFLOW_AUTH_TEMPLATE:-/etc/mlflow/basic_auth.ini}"
  # In this format % begins a reference, and an address may have it in a password.
  printf 'database_uri = %s\n' "$(printf '%s' "$MLFLOW_BACKEND_STORE_URI" | sed 's/%/%%/g')"
} > "$config"
export MLFLOW_AUTH_CONFIG_PATH="$config"
exec "$@"
