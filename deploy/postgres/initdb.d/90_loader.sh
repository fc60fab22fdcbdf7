#!/usr/bin/env bash
# The role that the loader comes as. It may put events into the inbox and nothing else.
set -euo pipefail

file=/run/secrets/loader_password
if [[ ! -e $file ]]; then
    echo "$0: there is no $file, so no role for the loader is made"
    exit
fi
export LOADER_PASSWORD
LOADER_PASSWORD=$(<"$file")
# A file written on Windows.
LOADER_PASSWORD=${LOADER_PASSWORD%$'\r'}
# From the environment into the session, as others can read a command line. The statement that sets it is not logged.
psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv password LOADER_PASSWORD
CREATE ROLE loader LOGIN IN ROLE login_loader;
BEGIN;
SET LOCAL log_statement = 'none';
SET LOCAL log_min_duration_statement = -1;
SET LOCAL log_min_error_statement = 'panic';
ALTER ROLE loader PASSWORD :'password';
COMMIT;
SQL
