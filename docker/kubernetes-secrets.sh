#!/bin/sh
# Prints the secrets of a folder that make-secrets.sh made as Kubernetes' objects, for values.yaml:
#   docker/kubernetes-secrets.sh | kubectl apply --namespace airflow --filename -
# Before, write the addresses of your own PostgreSQL and broker into airflow_database_url, broker_url and
# result_backend_url there, and the keys of your S3 server into s3_access_key and s3_secret_key.
set -eu
folder=${1:-$(dirname "$0")/secrets}

# secret NAME KEY=FILE...: files by name, since an argument could be seen by others.
secret() {
  name=$1
  shift
  for pair; do
    shift
    set -- "$@" "--from-file=${pair%%=*}=$folder/${pair#*=}"
  done
  kubectl create secret generic "$name" --dry-run=client --output yaml "$@"
  echo ---
}

# KEDA asks the database too, and knows the address without the driver that Airflow takes.
sed 's/^postgresql+psycopg2:/postgresql:/' "$folder/airflow_database_url" |
  kubectl create secret generic nightshift-database --dry-run=client --output yaml \
    --from-file=connection=/dev/stdin
echo ---
secret nightshift-broker connection=broker_url
secret nightshift-result-backend connection=result_backend_url
secret nightshift-server fernet-key=fernet_key api-secret-key=api_secret_key jwt-secret=jwt_secret
secret nightshift-client s3_access_key=s3_access_key s3_secret_key=s3_secret_key \
  mlflow_password=mlflow_password public_key=public_key
secret nightshift-signing signing_key=signing_key
secret nightshift-people airflow_admin_password=airflow_admin_password \
  airflow_operator_password=airflow_operator_password airflow_approver_password=airflow_approver_password \
  airflow_viewer_password=airflow_viewer_password mlflow_admin_password=mlflow_admin_password \
  mlflow_password=mlflow_password
