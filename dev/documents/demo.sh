# The environment of the documents' blocks on the servers of a demo, and what some commands mean there.
# Sourced by dev/docs from the top of the repository, before the blocks of a page.
# shellcheck shell=bash

. dev/env.sh
unset DATABASE_URL MAKEFLAGS MAKELEVEL
[[ -f ${DEMO_STATE:-.demo}/env ]] || { echo "no demo is running: start one with 'make demo'" && exit 1; }
set -a
. "${DEMO_STATE:-.demo}/env"
set +a
# No block waits for a receive call to end.
export LOADER_WAIT=0
PATH=$PGBIN:$PATH

trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT

# Each page begins without what it creates.
PGOPTIONS='-c client_min_messages=warning' psql -Xq -d postgres \
    -c 'DROP DATABASE IF EXISTS mydb WITH (FORCE)' -c 'DROP ROLE IF EXISTS my_loader'

# dev/test runs the demo and the tests itself. Here it is enough that make has the targets.
make() {
    case " $* " in
        *' psql '*) command make "$@" ;;
        *) command make --dry-run "$@" >/dev/null ;;
    esac
}

# The demo's superuser stands for the server's user.
sudo() {
    [[ $1 == -u && $2 == postgres ]]
    shift 2
    "$@"
}

# The loader, as it is called once it is installed. One that runs until SIGTERM gets that when it is ready.
pg_mask-loader() {
    case " $* " in
        *' --drain '* | *' --dry-run '* | ' check '* | ' redrive '* | ' man '* | ' completions '*)
            target/debug/loader "$@"
            return
            ;;
    esac
    # In the background: until the end of the page.
    ((BASH_SUBSHELL == 0)) || exec target/debug/loader "$@"
    local log loader
    log=$(mktemp)
    target/debug/loader "$@" 2>"$log" &
    loader=$!
    while ! grep -qw ready "$log" && kill -0 "$loader" 2>/dev/null; do
        sleep 0.1
    done
    kill "$loader" 2>/dev/null || true
    cat "$log"
    rm "$log"
    wait "$loader"
}
