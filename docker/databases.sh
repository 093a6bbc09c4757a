#!/bin/sh
# PostgreSQL runs this once, when its data folder is new: MLflow has databases of its own.
set -eu
for name in mlflow mlflow_auth; do
  createdb --username "$POSTGRES_USER" "$name"
done
