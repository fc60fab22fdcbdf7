# Servers for the tests, which log and remember all that they can, so that the search for plaintext in loader/tests has
# something to search. Sourced by dev/test and dev/test-majors, from the top of the repository.
# shellcheck shell=bash

# start_loud_servers DIR: starts them, and sets the variables of DIR/env.
start_loud_servers() {
    local settings=(
        log_statement=all log_min_duration_statement=0 log_min_messages=debug1 log_error_verbosity=verbose
        log_parameter_max_length=-1 log_parameter_max_length_on_error=-1
        shared_preload_libraries=pg_stat_statements pg_stat_statements.track=all
        # The tests run more statements than the default (5,000) keeps, and the search for plaintext plants one.
        pg_stat_statements.max=50000
    )
    dev/servers.py start "$1" "${settings[@]/#/--conf=}"
    set -a
    . "$1/env"
    set +a
    # The tests call psql and pg_dump of the server's own version.
    export PATH=$PGBIN:$PATH
}

# keep_logs STATUS: keeps the servers' logs of a run that failed. They would be gone with the servers.
keep_logs() {
    if [[ $1 != 0 && -f ${PGLOG:-} ]]; then
        mkdir -p target/test-logs
        cp "$PGLOG" target/test-logs/postgres.log
        cp "$SERVERS_ROOT/sqs/log" target/test-logs/sqs.log
        echo "the servers' logs are in target/test-logs" >&2
    fi
}
