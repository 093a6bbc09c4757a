#!/bin/sh
# Makes the secrets of a deployment, one file each: docker/make-secrets.sh [FOLDER]
# What exists is kept, so it can be run again, and a managed service's address is written by hand before or
# after. The folder is closed to others (0700). The files in it can be read by all (0444): they are mounted
# one by one, and each container has a user of its own that owns none of them.
set -eu
umask 077
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 0700 "$folder"
cd "$folder"
trap 'rm -f draft' EXIT

# keep NAME: standard input becomes the secret, unless there is one; whole, or not at all.
keep() {
  if [ -s "$1" ]; then
    cat > /dev/null
    return
  fi
  cat > draft
  if ! [ -s draft ]; then
    echo "the secret $1 could not be made: is openssl installed?" >&2
    exit 1
  fi
  chmod 0444 draft
  mv draft "$1"
  echo "made $1"
}

password() { openssl rand -hex 24 | tr -d '\n'; }

for name in postgres_password mlflow_admin_password mlflow_password \
  airflow_admin_password airflow_operator_password airflow_approver_password airflow_viewer_password; do
  password | keep "$name"
done
for name in jwt_secret api_secret_key mlflow_secret_key; do
  openssl rand -hex 32 | tr -d '\n' | keep "$name"
done
openssl rand -base64 32 | tr '+/' '-_' | tr -d '\n' | keep fernet_key

database="postgresql+psycopg2://nightshift:$(cat postgres_password)@postgres:5432"
printf '%s/airflow' "$database" | keep airflow_database_url
printf '%s/mlflow' "$database" | keep mlflow_database_url

keep valkey.conf << END
requirepass $(password)
dir /data
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
END
broker="redis://:$(sed -n 's/^requirepass //p' valkey.conf)@valkey:6379"
printf '%s/0' "$broker" | keep broker_url
printf '%s/1' "$broker" | keep result_backend_url

openssl rand -hex 10 | tr -d '\n' | keep s3_access_key
password | keep s3_secret_key
keep s3.json << END
{"identities": [{"name": "nightshift",
  "credentials": [{"accessKey": "$(cat s3_access_key)", "secretKey": "$(cat s3_secret_key)"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
END

openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2> /dev/null | keep signing_key
openssl pkey -in signing_key -pubout | keep public_key
echo "the secrets are in $folder; log in to Airflow as admin with airflow_admin_password"
