#!/bin/sh
# Puts a backup in the place of what the database has, in one transaction: all of it or nothing.
#
#   restore.sh [--replace] [--with-deleted-accounts] FILE.dump
#   restore.sh --recovered
#
# --replace: the database may have accounts and tasks, and loses them. Without it a database that has any is left alone.
# --with-deleted-accounts: also accounts that were deleted after the backup, as far as the database still knows of them, are there again.
# --recovered: the database is one of the past already, by other means (recovery to a point in time): does only what has to follow.
#
# libpq's variables as for backup.sh: the role that migrates, straight to PostgreSQL. With REDIS_HOST it empties Redis too: see flush-redis.sh.
# The roles must be there. What comes back is the past, and nobody may act on what is not: every session has ended, every signing key is withdrawn
# (auth_service makes another), and the feed has another epoch, so that who followed it is told to list again.
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
  # Nobody knows any more who was deleted.
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

# Between the two statements of a restore comes the dump, and the commit only if all of the dump came: else psql ends within the transaction.
transaction() {
  if [ "$recovered" = true ]; then
    echo 'BEGIN;'
  else
    cat "$here/before-restore.sql"
    pg_restore --no-owner --file=- "$file" || return
  fi
  cat "$here/after-restore.sql"
}

# Whole, and readable to its end, before anything is touched.
verify() {
  [ -r "$file" ] || fail "there is no $file"
  [ -r "$file.sha256" ] || fail "there is no $file.sha256, by which to know that the file is whole"
  (cd "$(dirname "$file")" && sha256sum -c "$(basename "$file").sha256" >/dev/null) || fail "$file is not what was written"
  pg_restore --file=/dev/null "$file" || fail "$file cannot be read"
}

[ "$recovered" = true ] || verify
epoch=$(run_psql --command='SELECT gen_random_uuid()') || fail "the database cannot be reached"
transaction | run_psql --set=replace="$replace" --set=with_deleted_accounts="$with_deleted_accounts" --set=epoch="$epoch" || :
# The epoch tells: it is committed with everything else, or nothing is.
found=$(run_psql --command='SELECT epoch FROM task.feed' 2>/dev/null) || run_psql --command='SELECT' \
  || fail "the connection broke, perhaps after the commit: if task.feed has the epoch $epoch, all was restored, else nothing was changed"
[ "$found" = "$epoch" ] || fail "nothing was changed"
echo "restored: ${file:-what was recovered}"

if [ -n "${REDIS_HOST:-}" ]; then
  sh "$here/flush-redis.sh"
else
  echo "next: empty Redis (valkey-cli FLUSHDB), before the services are used"
fi
