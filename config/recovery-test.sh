#!/usr/bin/env bash
# Does a backup of svsync come back? Once a year by hand, or by a timer.
#
# Takes a dump (or the one that is given), restores it into an empty database elsewhere, opens
# that with the keys alone, and looks whether everything is there. Of the source nothing is
# asked but pg_dump. The copy calls no backend, for all of them are paused in it, and no Redis,
# and tells nobody anything. No value reaches the output or a file.
#
#   export SOURCE_ADMIN_URL=postgresql://admin@db.internal/svsync      # or --dump FILE
#   export TARGET_ADMIN_URL=postgresql://admin@recovery.internal/svsync
#   export TARGET_URL=postgresql://svsync@recovery.internal/svsync
#   recovery-test.sh --key /mnt/safe/kms.key --secret recovery/canary --field value --sha256 HEX
#
#   SOURCE_ADMIN_URL, TARGET_ADMIN_URL   as a role that row-level security does not bind
#   TARGET_URL      the same database as the target's, as svsync's own role, which owns it
#                   Passwords are in PGPASSFILE: arguments of programs can be seen by others.
#   --key FILE      a key file that has to open the store by itself; again for a second one.
#                   Without it KMS_PROVIDER, KMS_KEY_ID and the like say which key services do.
#   --secret PATH, --field NAME, --tenant SLUG
#                   a secret that is read back, of this tenant (default); NAME is `value`
#   --sha256 HEX    what the field's value has to be: printf %s VALUE | sha256sum
#   --dump FILE     restore this one (of pg_dump -Fc), in place of making one
#   SVSYNC          the program, where it is not on the PATH
#
# Exit code: 0 all of it came back, 1 something did not, 2 it cannot be tried so.
set -uo pipefail
umask 077
export LC_ALL=C

refuse() {
  echo "recovery-test: $1" >&2
  exit 2
}

dump='' secret='' field=value sha256='' tenant=default
keys=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
      exit 0
      ;;
    --key | --secret | --field | --sha256 | --tenant | --dump)
      [ $# -ge 2 ] || refuse "$1 needs a value"
      case $1 in
        --key) keys+=("$2") ;;
        --secret) secret=$2 ;;
        --field) field=$2 ;;
        --sha256) sha256=$2 ;;
        --tenant) tenant=$2 ;;
        --dump) dump=$2 ;;
      esac
      shift 2
      ;;
    *) refuse "$1 is no option; --help shows them" ;;
  esac
done

svsync=${SVSYNC:-svsync}
[ -n "$secret" ] || refuse "--secret PATH names the secret that is read back"
[[ -z $sha256 || $sha256 =~ ^[0-9a-f]{64}$ ]] || refuse "--sha256 is 64 hexadecimal digits"
[ -n "$dump" ] || [ -n "${SOURCE_ADMIN_URL:-}" ] || refuse "set SOURCE_ADMIN_URL, or give --dump FILE"
for name in SOURCE_ADMIN_URL TARGET_ADMIN_URL TARGET_URL; do
  [ -n "${!name:-}" ] || [ $name = SOURCE_ADMIN_URL ] || refuse "set $name"
  [[ ! ${!name:-} =~ ^[a-z]+://[^/@]*:[^/@]+@|password[[:space:]]*= ]] || refuse "$name holds a password: put that into PGPASSFILE"
done
for program in "$svsync" pg_dump pg_restore psql sha256sum awk; do
  command -v "$program" >/dev/null || refuse "$program is not there: install it, or set PATH"
done
for key in "${keys[@]}"; do
  [ -r "$key" ] || refuse "the key file $key cannot be read"
done

work=$(mktemp -d) || refuse "no temporary folder can be made"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
rows=() failed=0

# One row of the table; what went wrong goes on being looked at where that can be told.
say() {
  rows+=("$1|$2|$3")
  [ "$2" != FAILED ] || failed=1
}

finish() {
  local row step state what
  printf '%-15s %-8s %s\n' STEP STATE WHAT
  for row in "${rows[@]}"; do
    IFS='|' read -r step state what <<<"$row"
    printf '%-15s %-8s %s\n' "$step" "$state" "$what"
  done
  echo
  if [ $failed = 0 ]; then
    echo "All of it came back. The copy is still in the target: drop that database."
  else
    echo "Not all of it came back."
  fi
  exit $failed
}

# The first sentence of a program's complaint: what follows may quote rows.
sentence() { grep -E -m1 '^(svsync|pg_dump|pg_restore|psql|ERROR|FATAL): ' "$work/said" | sed 's/^svsync: //' | cut -c1-300; }

stop() {
  say "$1" FAILED "${2:-$(sentence)}"
  finish
}

# The copy and nothing else: neither this machine's configuration nor its store.
while IFS='=' read -r name _; do
  case $name in
    SVSYNC_KMS_ACCESS*) ;;
    SVSYNC_* | REDIS_URL | DATABASE_URL_READ | MIGRATE_ON_START | BIND_ADDRESS | BASE_URL | TLS_*) unset "$name" ;;
  esac
done < <(env)
export DATABASE_URL=$TARGET_URL METRICS_ADDRESS=off LOG_LEVEL=warn LOG_FORMAT=json
mkdir "$work/state"
printf 'state_dir: %s\nbind_address: 127.0.0.1:8443\n' "$work/state" >"$work/svsync.yaml"
run() { "$svsync" "$@" --config "$work/svsync.yaml" </dev/null 2>"$work/said"; }
# An error, where row-level security would hide rows: none would be paused of those, say.
ask() {
  psql -X -A -t -q -v ON_ERROR_STOP=1 -d "$TARGET_ADMIN_URL" -c 'SET row_security = off' -c "$1" 2>"$work/said"
}

# --- the target -------------------------------------------------------------------------

version=$(ask "SHOW server_version") || stop target
there=$(ask "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'") || stop target
[ "$there" = 0 ] || refuse "the database of TARGET_ADMIN_URL is not empty: make a new one for this test"
role=$(psql -X -A -t -q -d "$TARGET_URL" -c "SELECT current_user" 2>"$work/said") || stop target
same="SELECT current_database() || ' ' || extract(epoch FROM pg_postmaster_start_time())"
[ "$(ask "$same")" = "$(psql -X -A -t -q -d "$TARGET_URL" -c "$same")" ] ||
  refuse "TARGET_URL and TARGET_ADMIN_URL are not the same database"
say target ok "an empty database on PostgreSQL ${version%% *}, of the role $role"

# --- the dump ---------------------------------------------------------------------------

if [ -z "$dump" ]; then
  dump=$work/svsync.dump began=$SECONDS
  pg_dump -Fc -f "$dump" -d "$SOURCE_ADMIN_URL" 2>"$work/said" || stop dump
  say dump ok "$(wc -c <"$dump") bytes in $((SECONDS - began)) s"
else
  [ -r "$dump" ] || refuse "the dump $dump cannot be read"
  if [ -d "$dump" ]; then say dump ok "a folder, given"; else say dump ok "$(wc -c <"$dump") bytes, given"; fi
fi

began=$SECONDS
pg_restore --exit-on-error --single-transaction --no-owner --role="$role" -d "$TARGET_ADMIN_URL" "$dump" \
  >/dev/null 2>"$work/said" || stop restore
say restore ok "in one transaction, in $((SECONDS - began)) s"

# Rows by table as the dump has them, which is the source at one moment; and as they are here.
pg_restore --data-only -f - "$dump" 2>"$work/said" | awk '
  inside && /^\\\.$/ { print table, n; inside = 0; next }
  inside { n++; next }
  /^COPY / { table = $2; n = 0; inside = 1 }' | sort >"$work/dumped" || stop counts
[ -s "$work/dumped" ] || stop counts "the dump holds no rows: make it by pg_dump -Fc, without --inserts"
# What was left out of the dump is not in it to be counted: here there is an empty table of it.
ask "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')" |
  sort >"$work/tables" || stop counts
left_out=$(cut -d' ' -f1 "$work/dumped" | comm -13 - "$work/tables" | paste -sd' ')
[ -z "$left_out" ] || stop counts "the dump was made without the rows of $left_out"
counts=$(awk '{ printf "%sSELECT '\''%s '\'' || count(*) FROM %s", (NR > 1 ? " UNION ALL " : ""), $1, $1 }' "$work/dumped")
ask "$counts" | sort >"$work/restored" || stop counts
total=$(awk '{ n += $2 } END { print n + 0 }' "$work/dumped")
if differing=$(diff "$work/dumped" "$work/restored"); then
  say counts ok "$(wc -l <"$work/dumped") tables, $total rows: as many here as in the dump"
else
  say counts FAILED "not as in the dump: $(awk '/^[<>]/ { print $2 }' <<<"$differing" | sort -u | paste -sd' ')"
fi

# --- svsync on it -----------------------------------------------------------------------

paused=$(ask "WITH p AS (UPDATE backends SET state = 'paused' WHERE state = 'active' RETURNING 1)
              SELECT count(*) FROM p") || stop backends
say backends ok "$paused paused in the copy: none is called"

run migrate >"$work/out" || stop migrate
say migrate ok "$(awk '/^[0-9]/ { n++ } END { print n ? n " applied" : "the schema is up to date" }' "$work/out")"

# What the doctor says of one thing: `state  what`.
finding() { awk -F '  +' -v check="$1" '$1 == check { print $2 "|" $3 }' "$work/doctor" | grep -E -m1 "$2"; }

run doctor >"$work/doctor"
if [ -n "$(finding restore '^wrong')" ]; then
  noticed="noticed by itself"
else
  noticed="not noticed by itself (a server that goes on, or a role that may not ask)"
fi
done_=$(run migrate --after-restore | tail -n 1) || stop "after restore"
say "after restore" ok "$noticed. ${done_}"

one_key() { # the words to name it by; how it is set is in the environment
  if ! run doctor >"$work/doctor" && [ ! -s "$work/doctor" ]; then
    say key FAILED "$1: $(sentence)"
  elif [ -n "$(finding 'root key' '^ok')" ]; then
    say key ok "$1 opens the root key by itself"
  else
    say key FAILED "$1: $(finding 'root key' '^(wrong|warning)' | cut -d'|' -f2)"
  fi
}
if [ ${#keys[@]} -gt 0 ]; then
  unset KMS_KEY_ID_SECONDARY
  export KMS_PROVIDER=local
  for key in "${keys[@]}"; do
    KMS_KEY_ID="file:$(realpath "$key")"
    export KMS_KEY_ID
    one_key "$key"
  done
  KMS_KEY_ID="file:$(realpath "${keys[0]}")"
else
  one_key "${KMS_PROVIDER:-local}"
fi
[ $failed = 0 ] || finish # without a key nothing more can be read

# The value goes through a pipe to its hash, and nowhere else.
read_back=$(run secrets get "$secret" --field "$field" --tenant "$tenant" | sha256sum) || stop secret
if [ -z "$sha256" ]; then
  say secret ok "$secret opens; whether it is the right one was not asked (--sha256)"
elif [ "${read_back%% *}" = "$sha256" ]; then
  say secret ok "$secret is what it was"
else
  say secret FAILED "$secret opens, and is another value than --sha256 says"
fi

tenants=$(ask "SELECT slug || ' ' || status FROM tenants WHERE tenant_id > 0 ORDER BY tenant_id") || stop "audit log"
while IFS=' ' read -r slug status; do
  if [ "$status" = shredded ]; then
    say "audit log" ok "$slug was shredded: its keys are gone, and its log is checked with --key"
  elif run audit verify --tenant "$slug" >"$work/out"; then
    say "audit log" ok "$slug: $(awk '$1 == "rows" { print $2 }' "$work/out") rows fit, of $(awk '$1 == "chains" { print $2 }' "$work/out") chains"
  else
    say "audit log" FAILED "$slug: $(sentence)"
  fi
done <<<"$tenants"

run doctor >"$work/doctor"
[ -s "$work/doctor" ] || stop doctor
wrong=$(awk -F '  +' '$2 == "wrong" { print $1 ": " $3 }' "$work/doctor" | paste -sd';')
if [ -n "$wrong" ]; then
  say doctor FAILED "$wrong"
else
  say doctor ok "$(tail -n 1 "$work/doctor")"
fi
finish
