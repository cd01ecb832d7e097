#!/bin/sh
# Empties Redis after a restore: what it holds is of the database before. Nothing is lost with it.
#
# REDIS_HOST, REDIS_PORT (6379), REDIS_DATABASE (0), REDIS_USER, REDIS_TLS (true | false), and the password in REDISCLI_AUTH, which the client reads itself.
set -eu

fail() {
  echo "Redis was not emptied, so cached tasks of before the restore are shown until they expire: $1" >&2
  exit 1
}

client=$(command -v valkey-cli || command -v redis-cli) || fail "there is no valkey-cli and no redis-cli"
set -- -h "${REDIS_HOST:?}" -p "${REDIS_PORT:-6379}" -n "${REDIS_DATABASE:-0}"
[ -z "${REDIS_USER:-}" ] || set -- "$@" --user "$REDIS_USER"
[ "${REDIS_TLS:-false}" = false ] || set -- "$@" --tls
answer=$("$client" "$@" FLUSHDB 2>&1) || fail "$answer"
[ "$answer" = OK ] || fail "$answer"
echo "Redis is empty"
