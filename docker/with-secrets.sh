#!/bin/sh
# Runs a command with the secrets that its program reads from the environment only: where NAME_FILE names a
# file, NAME becomes its content. Airflow reads its own options from files by *_CMD instead.
set -eu
for name in AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY \
  MLFLOW_TRACKING_PASSWORD MLFLOW_BACKEND_STORE_URI MLFLOW_AUTH_ADMIN_PASSWORD \
  MLFLOW_FLASK_SERVER_SECRET_KEY NIGHTSHIFT_AIRFLOW_PASSWORD AIRFLOW__CELERY__BROKER_URL; do
  file=$(printenv "${name}_FILE" || true)
  [ -n "$file" ] || continue
  if ! [ -r "$file" ] || ! [ -s "$file" ]; then
    echo "the secret $file of $name is missing, empty or not readable: make it with docker/make-secrets.sh" >&2
    exit 1
  fi
  export "$name=$(cat "$file")"
done
exec "$@"
