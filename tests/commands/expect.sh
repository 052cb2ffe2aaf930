# shellcheck shell=bash
# The words that the checks of tests/run are written in. Sourced, not run. Each check prints one line that
# begins with `ok`, `FAIL` or `skip`, as tests/tally counts them.

failures=0

# limit TIME COMMAND...: ends the command, and says so, if it runs longer.
limit() {
    local longest=$1 code=0
    shift
    timeout --kill-after=20 "$longest" "$@" || code=$?
    [ "$code" != 124 ] && [ "$code" != 137 ] || echo "ran past its limit of $longest: $*" >&2
    return "$code"
}

# check SENTENCE COMMAND...: the command succeeds. Its output is shown only if it does not.
check() {
    local sentence=$1 output code=0
    shift
    output=$(mktemp)
    # In this shell, not in one beneath it: the command may be a function that waits for a child.
    "$@" >"$output" 2>&1 || code=$?
    if [ "$code" = 0 ]; then
        report_ok "$sentence"
    else
        report_fail "$sentence" "exit code $code from: $*" "$(cat "$output")"
    fi
    code=$?
    rm -f "$output"
    return "$code"
}

report_ok() { printf 'ok   %s\n' "$1"; }

# report_fail SENTENCE DETAIL...
report_fail() {
    printf 'FAIL %s\n' "$1"
    shift
    printf '%s\n' "$@" | tail -n 60 | sed 's/^/     | /'
    failures=$((failures + 1))
    return 1
}

# skip SENTENCE WHY
skip() { printf 'skip %s: %s\n' "$1" "$2"; }

# refuses CODE WORD SENTENCE COMMAND...: the command ends with that exit code, and what it says on stderr is
# one line that holds the word (a regular expression, any case), and no panic.
refuses() {
    local code=$1 word=$2 sentence=$3 out err got=0 said
    shift 3
    out=$(mktemp) err=$(mktemp)
    timeout --kill-after=10 120 "$@" >"$out" 2>"$err" </dev/null || got=$?
    said=$(without_log "$err")
    if [ "$got" != "$code" ]; then
        report_fail "$sentence" "exit code $got, not $code, from: $*" "$said"
    elif grep -qE 'panicked|RUST_BACKTRACE' "$out" "$err"; then
        report_fail "$sentence" "it panicked: $*" "$said"
    elif [ "$(printf '%s' "$said" | grep -c .)" != 1 ]; then
        report_fail "$sentence" "not one line on stderr from: $*" "$said"
    elif ! printf '%s' "$said" | grep -qiE -- "$word"; then
        report_fail "$sentence" "nothing of '$word' in what it says: $*" "$said"
    else
        report_ok "$sentence"
    fi
    code=$?
    rm -f "$out" "$err"
    return "$code"
}

# What a program said on stderr, less its log lines (time and level) and progress bars.
without_log() {
    sed -E 's/\x1b\[[0-9;?]*[A-Za-z]//g; s/.*\r([^\r])/\1/; s/\r$//' "$1" |
        grep -vE '^ *([0-9]{4}-[0-9-]+T[0-9:.]+Z? +)?(TRACE|DEBUG|INFO|WARN|ERROR)\b' | grep . || true
}

# holds SENTENCE FILE EXPRESSION: the Python expression is true of `rows`, the JSON values in the lines of FILE.
holds() {
    check "$1" python3 "$(dirname "${BASH_SOURCE[0]}")/holds.py" "$2" "$3"
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

# The last line of a script of checks.
finish() { exit $((failures > 0)); }
