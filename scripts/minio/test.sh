#!/usr/bin/env bash
# The tests of backups in S3 once more, with another server: MinIO, which `setup.sh --minio` builds. It answers
# otherwise than versitygw does where something is refused.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly PORT=${MINIO_PORT:-29000} BUCKET=backups
minio=tools/minio/minio
[[ -x $minio ]] || { echo "minio: it is not in tools/minio/ (scripts/setup.sh --minio)" >&2 && exit 1; }

export AWS_ACCESS_KEY_ID=of-the-tests AWS_SECRET_ACCESS_KEY=hidden-of-the-tests
folder=$(mktemp -d)
MINIO_ROOT_USER=$AWS_ACCESS_KEY_ID MINIO_ROOT_PASSWORD=$AWS_SECRET_ACCESS_KEY MINIO_UPDATE=off MINIO_BROWSER=off \
    "$minio" server --quiet --address "127.0.0.1:$PORT" "$folder/data" >"$folder/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" || true; rm -rf "$folder"' EXIT

# The bucket, once it serves.
make_bucket() {
    curl --silent --fail --output /dev/null --request PUT --aws-sigv4 aws:amz:us-east-1:s3 \
        --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" "http://127.0.0.1:$PORT/$BUCKET"
}
deadline=$((SECONDS + 60))
until make_bucket; do
    kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2 && exit 1; }
    ((SECONDS < deadline)) || { echo "minio: it does not serve" >&2 && exit 1; }
    sleep 0.2
done

export COMPOSE_BROKER_TEST_S3=http://127.0.0.1:$PORT/$BUCKET
cargo test --locked --test it -- contract::backup_store s3
