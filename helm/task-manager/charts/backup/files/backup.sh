#!/bin/sh
# Writes a backup of the database, verifies that it can be read, and only then deletes backups that are too old.
#
#   backup.sh DIRECTORY [OPTION OF pg_dump …]
#
# libpq reads the connection from PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGSSLMODE and PGSSLROOTCERT. Use the migration role, which owns
# everything, and PostgreSQL's own host, not PgBouncer's, because a dump needs one session.
# BACKUP_RETENTION_DAYS (14): the script deletes backups older than this number of days, but never the newest one.
#
# With exit status 0, DIRECTORY contains task-manager-TIME.dump and its checksum. With any other status, there is no new file with that name.
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

# Dumps both schemas from one snapshot. --strict-names: if a schema is missing, pg_dump fails instead of writing an empty backup.
pg_dump --format=custom --file="$draft" --schema=auth --schema=task --strict-names --lock-wait-timeout=60s --no-password "$@" \
  || fail "pg_dump"
# Reads the whole dump. The table of contents alone would not show a truncated dump, because it is at the beginning of the file.
pg_restore --file=/dev/null "$draft" || fail "the dump cannot be read back"
contents=$(pg_restore --list "$draft")
for table in "auth users" "task feed"; do
  case $contents in *" TABLE DATA $table "*) ;; *) fail "the dump has no table $table" ;; esac
done

# Writes the checksum before the dump gets its name, so that every dump has a checksum.
sum=$(sha256sum "$draft")
echo "${sum%% *}  $name" >"$directory/$name.sha256"
mv "$draft" "$directory/$name"
sync
echo "backup written: $directory/$name, $(wc -c <"$directory/$name" | tr -d ' ') bytes"

# The backup just written is the newest, so a verified one always stays. In minutes, because -mtime counts whole days and would keep one day more.
find "$directory" -maxdepth 1 -name 'task-manager-*.dump' ! -name "$name" -mmin "+$((days * 1440))" | while IFS= read -r old; do
  rm -f "$old" "$old.sha256"
  echo "backup removed, older than $days days: $old"
done
# A backup that was killed leaves a draft. No script uses a draft as a backup.
find "$directory" -maxdepth 1 -name '.task-manager-*.draft' -mmin +1440 -exec rm -f {} +
