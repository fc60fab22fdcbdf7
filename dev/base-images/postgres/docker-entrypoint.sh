#!/usr/bin/env bash
# What the official image's entrypoint promises, for the stand-in: a cluster at first start, made from POSTGRES_* and
# from what lies in /docker-entrypoint-initdb.d, then the server as process 1, as the user postgres.
set -Eeuo pipefail

[[ ${1:-} != -* ]] || set -- postgres "$@"
[[ ${1:-} == postgres ]] || exec "$@"

if ((EUID == 0)); then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
    exec gosu postgres "${BASH_SOURCE[0]}" "$@"
fi
[[ ! -s $PGDATA/PG_VERSION ]] || exec "$@"

# Each of these may be given by a file named in NAME_FILE.
for name in POSTGRES_PASSWORD POSTGRES_USER POSTGRES_DB POSTGRES_INITDB_ARGS; do
    file=${name}_FILE
    if [[ -n ${!file:-} ]]; then
        [[ -z ${!name:-} ]] || { echo "$name and $file are both set" >&2; exit 1; }
        export "$name=$(<"${!file}")"
    fi
    unset "$file"
done
export POSTGRES_USER=${POSTGRES_USER:-postgres}
export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
if [[ -z ${POSTGRES_PASSWORD:-} && $method != trust ]]; then
    echo 'the database has no password: set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE' >&2
    exit 1
fi

initdb_args=()
[[ -z ${POSTGRES_INITDB_ARGS:-} ]] || read -ra initdb_args <<<"$POSTGRES_INITDB_ARGS"
initdb --username="$POSTGRES_USER" --pwfile=<(echo "${POSTGRES_PASSWORD:-}") "${initdb_args[@]}"
printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"

# No TCP yet: a client that waits for the server must not find this one.
pg_ctl -D "$PGDATA" -o "$(printf '%q ' "${@:2}" -c listen_addresses=)" -w start
export PGPASSWORD=${POSTGRES_PASSWORD:-}
run_psql() { psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --no-password "$@"; }
if [[ $POSTGRES_DB != postgres ]]; then
    run_psql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
fi
for file in /docker-entrypoint-initdb.d/*; do
    echo "docker-entrypoint: $file"
    case $file in
        *.sh) if [[ -x $file ]]; then "$file"; else . "$file"; fi ;;
        *.sql) run_psql --dbname "$POSTGRES_DB" -f "$file" ;;
        *.sql.gz) gunzip -c "$file" | run_psql --dbname "$POSTGRES_DB" ;;
        *.sql.xz) xzcat "$file" | run_psql --dbname "$POSTGRES_DB" ;;
        *.sql.zst) zstd -dc "$file" | run_psql --dbname "$POSTGRES_DB" ;;
    esac
done
pg_ctl -D "$PGDATA" -m fast -w stop
unset PGPASSWORD POSTGRES_PASSWORD
exec "$@"
