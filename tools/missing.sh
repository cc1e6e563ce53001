#!/bin/sh
# Says which tests had to be skipped on this machine, because go test does not
# unless it is asked to be verbose.
say() { echo "SKIPPED: $1"; }
command -v psql >/dev/null 2>&1 || say "psql is missing: the SQL endpoint was not tried with it"
command -v aws >/dev/null 2>&1 || say "the aws CLI is missing: the Firehose API was not tried with it"
command -v pgbouncer >/dev/null 2>&1 || say "pgbouncer is missing: the catalog in PostgreSQL was not tried behind a pooler"
python3 -c 'import boto3' >/dev/null 2>&1 || say "boto3 is missing: the Firehose API was not tried with it"
command -v systemd-analyze >/dev/null 2>&1 || say "systemd-analyze is missing: the systemd unit was not verified with it"
command -v promtool >/dev/null 2>&1 || say "promtool is missing: the alert rules were not tried with it (make alerts tries them with Prometheus's library)"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || say "no PostgreSQL server: sums were not held against it, and the catalog was not tried in it"
[ -d "${TAPEHOUSE_TEST_DATA:-../shared/data}" ] || say "the real captures are missing: set TAPEHOUSE_TEST_DATA to the directory that has them"
[ -d "$(go env GOMODCACHE)/github.com/versity/versitygw@v1.8.0" ] || say "the S3 server's module could not be fetched: the lake on S3 was not tried (module testservers)"
exit 0
