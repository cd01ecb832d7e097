#!/bin/sh
# Empties Redis after a restore, because it caches rows of the previous database. No user data is lost.
#
# REDIS_HOST, REDIS_PORT (6379), REDIS_DATABASE (0), REDIS_USER, REDIS_TLS (true | false), REDIS_CA (a file), and the password in REDISCLI_AUTH, which
# valkey-cli reads.
set -eu

fail() {
  echo "Redis was not emptied, so the services return cached tasks from before the restore until they expire: $1" >&2
  exit 1
}

client=$(command -v valkey-cli || command -v redis-cli) || fail "neither valkey-cli nor redis-cli is installed"
set -- -h "${REDIS_HOST:?}" -p "${REDIS_PORT:-6379}" -n "${REDIS_DATABASE:-0}"
[ -z "${REDIS_USER:-}" ] || set -- "$@" --user "$REDIS_USER"
[ "${REDIS_TLS:-false}" = false ] || set -- "$@" --tls
[ -z "${REDIS_CA:-}" ] || set -- "$@" --cacert "$REDIS_CA"
answer=$("$client" "$@" FLUSHDB 2>&1) || fail "$answer"
[ "$answer" = OK ] || fail "$answer"
echo "Redis is empty"
