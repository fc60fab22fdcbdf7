# The steps of a long script: how they are announced and timed, and what becomes of it when one fails or is interrupted.
# Sourced by the scripts in dev/ that have such steps, from the top of the repository.
# shellcheck shell=bash

steps=$(grep -c '^say ' "dev/${0##*/}")
step=0
said=

# Begins a step, and says how long the one before it took.
say() {
    took
    said=$1
    began_step=$SECONDS
    step=$((step + 1))
    printf '\n[%d/%d] %s\n' "$step" "$steps" "$said"
}
took() {
    [[ -z $said ]] || printf '      %d s\n' $((SECONDS - began_step))
}

# on_exit NAME FUNCTION: calls FUNCTION with the exit status at the end of the script, whatever ends it.
on_exit() {
    script=$1
    clean_up_with=$2
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}
finish() {
    local status=$?
    # A second Ctrl-C would leave servers behind.
    trap '' INT TERM HUP
    if ((status == 129 || status == 130 || status == 143)); then
        printf '\n%s: interrupted\n' "$script" >&2
    elif ((status != 0)); then
        printf '\n%s: FAILED in step %d of %d: %s\n' "$script" "$step" "$steps" "$said" >&2
    fi
    "$clean_up_with" "$status"
    exit "$status"
}

# Options for libtest that leave out the tests whose programs are not installed.
left_out=()
# unless_installed PROGRAM TEST...
unless_installed() {
    if ! command -v "$1" >/dev/null; then
        echo "left out, as $1 is not installed: ${*:2}"
        left_out+=("${@:2}")
    fi
}

all_passed() {
    took
    printf '\n%s: all passed, in %d min %d s\n' "$script" $((SECONDS / 60)) $((SECONDS % 60))
}
