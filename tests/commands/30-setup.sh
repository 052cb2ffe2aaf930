#!/bin/bash
# Setting it up: help, configuration, doctor.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"

"$lookback" --help >help 2>&1
for command in run inquire events show replay doctor cameras config bench; do
    check "--help names $command, and $command --help explains it" \
        sh -c 'grep -q "^ *$1 " help && "$0" "$1" --help | grep -q "[A-Za-z]"' "$lookback" $command
done
check '--version tells the version' sh -c '"$0" --version | grep -qE "^lookback [0-9]+\.[0-9]+\.[0-9]+"' "$lookback"

"$lookback" config --print-default >default.toml
check 'the printed default is TOML, with a comment for every key' python3 - <<'END'
import tomllib
text = open("default.toml").read()
tables = tomllib.loads(text)
assert {"device", "camera", "store", "sentinel", "inquiry", "events", "log"} <= set(tables), sorted(tables)
lines = text.splitlines()
bare = [l for n, l in enumerate(lines) if "=" in l and not l.startswith("#") and "#" not in l and not lines[n - 1].startswith("#")]
assert not bare, bare
END
check 'it is accepted as a configuration' \
    quiet "$lookback" run --config default.toml --camera 'sim:seed=9001,minutes=1,speed=max' --data-dir C
check '`doctor` finds nothing broken on a fresh data directory' quiet "$lookback" doctor --data-dir C
"$lookback" doctor --data-dir C --json >doctor.json
holds '`doctor --json` tells a status for each check, and a remedy for what is not well' doctor.json '
    all(c["name"] and c["finding"] and c["status"] in ("ok", "warn", "fail")
        and (c["status"] == "ok" or c["remedy"])
        for r in rows for c in (r["checks"] if isinstance(r, dict) and "checks" in r else r if isinstance(r, list) else [r]))
    and "tract" in str(rows)'
# None of these is on any machine that the tests run on, and the agent has to watch all the same.
cat >board.toml <<'END'
name = "a board with nothing on it"
[relay]
chip = "/dev/gpiochip99"
offset = 3
[watchdog]
device = "/dev/watchdog99"
END
printf '[board]\ndescription = "board.toml"\n' >with-board.toml
"$lookback" doctor --config with-board.toml --data-dir C --json >board.json
holds '`doctor` names what of the board is not there, and goes on' board.json '
    all(
        any(c["name"] == f"board: {part}" and c["status"] == "warn" and file in c["finding"] for c in rows[0]["checks"])
        for part, file in [("alarm relay", "/dev/gpiochip99"), ("watchdog", "/dev/watchdog99")])'
"$lookback" run --config with-board.toml --camera sim:seed=9001,minutes=0.5,speed=max --data-dir C2 >run.out 2>&1
check '`run` says so too, and watches' sh -c 'grep -q "alarm relay cannot be used: /dev/gpiochip99" run.out &&
    grep -q "^watched [1-9][0-9]* frames" run.out'
"$lookback" cameras --json >cameras.json
holds '`cameras` lists what is there, be it nothing' cameras.json 'isinstance(rows[0]["cameras"], list)'

check '`doctor` fails, and does not panic, if the data directory cannot be used' \
    sh -c '! "$0" doctor --data-dir /proc/nowhere >doctor.out 2>&1 && ! grep panicked doctor.out' "$lookback"
check 'the bundle that the repository carries is sound' "$bundle_tool" verify "$nano"
finish
