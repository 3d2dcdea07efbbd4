# Read by the recipes beside it: stage SCRIPT FLAGS says what it runs, runs it with $PYTHON, and says how long it took.
stage() {
    echo
    echo "=== $* ==="
    local start=$SECONDS
    "$PYTHON" "$@"
    echo "($((SECONDS - start)) s)"
}
