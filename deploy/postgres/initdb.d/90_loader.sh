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
# From the environment into the session: a command line can be read by others, and a logged statement too. What is
# logged is made unreadable first: the server is told the hash of the password.
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
