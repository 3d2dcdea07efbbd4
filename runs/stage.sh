# Read by the recipes beside it. stage SCRIPT FLAGS says what it runs, runs it with $PYTHON, and says
# how long it took. beside takes several stages, each one argument with its words parted by blanks,
# and runs two at a time; each line is marked with the stage that prints it.
# Those have one thread each: two stages of two threads on two cores wait for each other, five times
# as long.
export PYTHON PYTHONUNBUFFERED=1

stage() {
    echo
    echo "=== $* ==="
    local start=$SECONDS
    "$PYTHON" "$@"
    echo "($((SECONDS - start)) s)"
}

labelled() {
    local words="$*" name=${1#train_}
    case $words in *--out\ *) name=${words##*--out } ;; esac
    stage "$@" 2>&1 | awk -v name="${name%.py}" '{ print name " | " $0; fflush() }'
}

beside() {
    printf '%s\n' "$@" | OMP_NUM_THREADS=1 xargs -P 2 -I '{}' \
        bash -c 'set -euo pipefail; . runs/stage.sh; labelled $1' beside '{}'
}
