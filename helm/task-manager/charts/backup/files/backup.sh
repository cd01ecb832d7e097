#!/bin/sh
# Writes a backup of the database, proves that it can be read, and only then removes those that are too old.
#
#   backup.sh DIRECTORY [OPTION OF pg_dump …]
#
# Where the database is and who logs in is libpq's business: PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGSSLMODE, PGSSLROOTCERT. The role is the
# one that migrates, which owns everything; the host is PostgreSQL's own and not PgBouncer's, since a dump is one session.
# BACKUP_RETENTION_DAYS (14) is how long backups are kept, if there is a newer one.
#
# With status 0 there is DIRECTORY/task-manager-TIME.dump, and its checksum beside it. With any other there is no new file of that name.
set -eu
umask 077

directory=${1:?usage: backup.sh DIRECTORY [OPTION OF pg_dump …]}
shift
days=${BACKUP_RETENTION_DAYS:-14}
case $days in '' | *[!0-9]* | 0*) echo "BACKUP_RETENTION_DAYS: must be a number of days, 1 or more" >&2 && exit 2 ;; esac

name=task-manager-$(date -u +%Y%m%dT%H%M%SZ).dump
draft=$directory/.$name.$$.draft

fail() {
  echo "backup failed: $1" >&2
  exit 1
}

trap 'rm -f "$draft"' EXIT
trap 'exit 143' INT TERM HUP

# Both schemas as of one moment. --strict-names: a database without them is an error, and not an empty backup.
pg_dump --format=custom --file="$draft" --schema=auth --schema=task --strict-names --lock-wait-timeout=60s --no-password "$@" \
  || fail "pg_dump"
# All of it, since the table of contents stands at the beginning: of a dump that is cut off it is whole.
pg_restore --file=/dev/null "$draft" || fail "the dump cannot be read back"
contents=$(pg_restore --list "$draft")
for table in "auth users" "task feed"; do
  case $contents in *" TABLE DATA $table "*) ;; *) fail "the dump has no table $table" ;; esac
done

# The checksum first: where there is a dump, there is its checksum.
sum=$(sha256sum "$draft")
echo "${sum%% *}  $name" >"$directory/$name.sha256"
mv "$draft" "$directory/$name"
sync
echo "backup written: $directory/$name, $(wc -c <"$directory/$name" | tr -d ' ') bytes"

# The one just written is the newest, so a good one always stays. In minutes: -mtime counts whole days, and keeps one more.
find "$directory" -maxdepth 1 -name 'task-manager-*.dump' ! -name "$name" -mmin "+$((days * 1440))" | while IFS= read -r old; do
  rm -f "$old" "$old.sha256"
  echo "backup removed, older than $days days: $old"
done
# What was killed half-way leaves a draft, which nothing takes for a backup.
find "$directory" -maxdepth 1 -name '.task-manager-*.draft' -mmin +1440 -exec rm -f {} +
