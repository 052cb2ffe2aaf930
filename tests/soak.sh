#!/bin/bash
# One camera for a long time: `soak.sh MINUTES` of simulated time, at full speed, on a small store.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/commands/begin.sh"

minutes=$1
# The most memory, in MB, that the agent may ever have had, with nano loaded and one camera.
rss_max_mb=150
cat >config.toml <<'END'
[store]
bytes_max_mb = 64
evidence_mb = 32
[events]
rows_max = 500
END

# How large it ever was and how long it took, from the kernel's own account of the child.
python3 - "$lookback" "$minutes" >account.json <<'END'
import json, os, resource, subprocess, sys, time
begun = time.time()
command = [sys.argv[1], "run", "--config", "config.toml", "--data-dir", "D", "--json"]
command += ["--camera", f"sim:seed=9001,speed=max,minutes={sys.argv[2]}"]
with open("run.json", "w") as out, open("run.err", "w") as err:
    code = subprocess.run(command, stdout=out, stderr=err).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
megabytes = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk("D/frames") for f in fs) / 2**20
print(json.dumps({
    "code": code, "wall_s": round(time.time() - begun, 1), "cpu_s": round(used.ru_utime + used.ru_stime, 1),
    "rss_mb": round(used.ru_maxrss / 1024, 1), "frames_mb": round(megabytes, 1),
}))
END
cat account.json
check "$minutes simulated minutes end by themselves" grep -q '"code": 0' account.json
check 'without a panic' sh -c '! grep panicked run.err'
holds "it never was larger than $rss_max_mb MB" account.json "rows[0]['rss_mb'] < $rss_max_mb"
holds 'footage and evidence stay within what they were given' account.json 'rows[0]["frames_mb"] <= 64 + 32 + 1'
"$lookback" events --data-dir D --kind incidents --limit 100000 --json >events.json
holds 'the log is not empty and stays within its bound' events.json '0 < len(rows) <= 500'
holds 'no two events have one id or one seq' events.json '
    len({r["id"] for r in rows}) == len(rows) == len({r["seq"] for r in rows})'
check 'every event in the log still replays to the same tokens' all_replay D events.json
finish
