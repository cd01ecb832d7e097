#!/bin/sh
# Replaces the contents of the database by a backup, in one transaction: either completely or not at all.
#
#   restore.sh [--replace] [--with-deleted-accounts] FILE.dump
#   restore.sh --recovered
#
# --replace: also restores if the database has accounts or tasks, and deletes them. Without it, the script does not change such a database.
# --with-deleted-accounts: also restores accounts that were deleted after the backup. Without it, these accounts stay deleted, if the replaced
#   database still recorded the deletion.
# --recovered: another tool has already recovered the database to a point in time. The script only makes the changes that must follow.
#
# It reads the same libpq variables as backup.sh: the migration role, and PostgreSQL's own host. If REDIS_HOST is set, it also empties Redis: see
# flush-redis.sh. The database roles must exist. After a restore, the state from after the backup must not be used. So the script ends every session, deletes every API token,
# withdraws every signing key (auth_service creates a new one), and gives the feed another epoch, so that clients that watch list again.
set -eu

here=$(dirname "$0")
replace=false
recovered=false
with_deleted_accounts=false
while :; do
  case ${1:-} in
    --replace) replace=true ;;
    --with-deleted-accounts) with_deleted_accounts=true ;;
    --recovered) recovered=true ;;
    *) break ;;
  esac
  shift
done
if [ "$recovered" = true ]; then
  # A recovered database does not know which accounts were deleted later.
  with_deleted_accounts=true
  file=
else
  file=${1:?usage: restore.sh [--replace] [--with-deleted-accounts] FILE.dump, or restore.sh --recovered}
fi

fail() {
  echo "restore failed: $1" >&2
  exit 1
}

run_psql() {
  psql --no-psqlrc --quiet --tuples-only --no-align --no-password --set=ON_ERROR_STOP=1 "$@"
}

# The dump is between the two SQL files. If pg_restore fails, the second file with the COMMIT is not sent, so psql ends inside the transaction.
transaction() {
  if [ "$recovered" = true ]; then
    echo 'BEGIN;'
  else
    cat "$here/before-restore.sql"
    pg_restore --no-owner --file=- "$file" || return
  fi
  cat "$here/after-restore.sql"
}

# Verifies the checksum and reads the file to its end, before anything changes.
verify() {
  [ -r "$file" ] || fail "$file does not exist"
  [ -r "$file.sha256" ] || fail "$file.sha256 does not exist, so the file cannot be verified"
  (cd "$(dirname "$file")" && sha256sum -c "$(basename "$file").sha256" >/dev/null) || fail "$file does not match its checksum"
  pg_restore --file=/dev/null "$file" || fail "$file cannot be read"
}

[ "$recovered" = true ] || verify
epoch=$(run_psql --command='SELECT gen_random_uuid()') || fail "the database cannot be reached"
transaction | run_psql --set=replace="$replace" --set=with_deleted_accounts="$with_deleted_accounts" --set=epoch="$epoch" || :
# The epoch shows whether the transaction was committed, because it is part of it.
found=$(run_psql --command='SELECT epoch FROM task.feed' 2>/dev/null) || run_psql --command='SELECT' \
  || fail "the connection broke, perhaps after the commit: if task.feed has the epoch $epoch, everything was restored, otherwise nothing was changed"
[ "$found" = "$epoch" ] || fail "nothing was changed"
echo "restored: ${file:-the recovered database}"

if [ -n "${REDIS_HOST:-}" ]; then
  sh "$here/flush-redis.sh"
else
  echo "next: empty Redis (valkey-cli FLUSHDB) before you start the services"
fi
