#!/bin/sh
# PostgreSQL runs this once, when its data folder is new: MLflow has a database of its own.
set -eu
createdb --username "$POSTGRES_USER" mlflow
