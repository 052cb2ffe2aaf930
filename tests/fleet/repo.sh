#!/bin/bash
# A repository of policies at the command line: made, filled, signed in one place and published in another.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
fleet=${LOOKBACK_FLEET:-$target/release/lookback-fleet}
repo() { "$fleet" repo "$@"; }

# --- beginning
refuses 1 'would be published' 'keys inside the repository are refused' "$fleet" repo init R --keys R/keys
check 'of which nothing is left' test ! -e R
refuses 1 'root-threshold' 'a threshold that no keys reach is refused' "$fleet" repo init R --keys K --root-threshold 4
init() { repo init R --keys K --json >init.json; }
check 'a repository is made, with its keys' init || finish
holds 'it says what cameras are to trust, and which keys belong offline' init.json \
    'rows[0]["root"] == "R/metadata/1.root.json" and len(rows[0]["offline"]) == 4 and len(rows[0]["online"]) == 2'
modes() { [ "$(stat -c %a K/*.pem | sort -u)" = 600 ] && [ "$(find R -name '*.pem*' | wc -l)" = 0 ]; }
check 'the keys are for their owner only, and none is in the repository' modes
refuses 1 'a repository already' 'it is not made twice' "$fleet" repo init R --keys L
refuses 1 'root-1.pem.*already' 'keys are not written over' "$fleet" repo init S --keys K
check 'of which nothing is left' test ! -e S
refuses 1 'no repository' 'what is no repository is refused' "$fleet" repo show S

# --- the keys go where they belong: the targets' and the root's offline, the others to the server
mkdir offline online
mv K/targets.pem K/root-*.pem offline
mv K/snapshot.pem K/timestamp.pem online

add() { repo add R "$nano" --waves '1%@0h,10%@24h,100%@3d' --json >add.json 2>add.err; }
check 'a bundle is added without any key' add
holds 'all of it is new' add.json 'rows[0]["new_bytes"] > 5_000_000 and rows[0]["channel"]["number"] == 1'
without_answers() {
    cp -r "$nano" silent && rm silent/golden.json && sed -i '/^\[parts.golden\]/,/^blake3/d' silent/bundle.toml &&
        "$bundle_tool" seal silent && cp -r R Q && repo add Q silent --json >silent.json && repo add Q silent >added.txt && grep -q 'no golden answers.*lookback-models golden' added.txt
}
check 'that one has no golden answers is told, and what gives it some' without_answers
holds 'to programs, too' silent.json 'rows[0]["golden"] is False'
holds 'while nano has some' add.json 'rows[0]["golden"]'
refuses 1 'is no wave' 'a wave that is none is refused' "$fleet" repo add R "$nano" --waves '10@24h'
refuses 1 'is no moment' 'a start that is none is refused' "$fleet" repo add R "$nano" --start soon
refuses 1 'holds no bundle' 'a folder that is no bundle is refused' "$fleet" repo add R "$repository"
refuses 1 'repo sign' 'what is not signed is not published' "$fleet" repo publish R --keys online
refuses 1 'targets.pem.*missing' 'nothing is signed with the online keys' "$fleet" repo sign R --keys online

# What goes to the offline machine is all but the packs, and what comes back one file.
mkdir carried
cp -r R/metadata R/staged carried
check 'it is signed where the packs are not' repo sign carried --keys offline
cp carried/staged/2.targets.json R/staged
refuses 1 'snapshot.pem.*missing' 'nothing is published with the offline keys' "$fleet" repo publish R --keys offline
check 'and published where the offline keys are not' repo publish R --keys online
show() { repo show R --verify --json >show.json; }
check 'the repository is verified to the last chunk' show
holds 'and shows its channel in its waves' show.json \
    'rows[0]["packs"]["hashed"] and not rows[0]["staged"] and [w["share"] for w in rows[0]["channels"][0]["waves"]] == [0.01, 0.1, 1.0]'
readable() { repo show R | grep -q 'channel stable number 1: nano@.*, 1%@0h,10%@24h,100%@72h, floor 0.0.0'; }
check 'which people can read, too' readable

# --- another course
halt() { repo waves R --halt --json >halt.json && repo sign R --keys offline && repo publish R --keys online; }
check 'the rollout is halted' halt
holds 'under a higher number' halt.json 'rows[0]["halted"] and rows[0]["number"] == 2'
refuses 1 'nothing of channel' 'halting what is halted is refused' "$fleet" repo waves R --halt
refuses 1 'no channel' 'a channel that is not there is named' "$fleet" repo waves R --channel beta --halt
refuses 1 'no bundle' 'a bundle that is not there is named' "$fleet" repo waves R --to nano@9.9.9+0

# --- what nothing needs any more
offered() { repo show R --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["channels"][0]["bundle"])'; }
before=$(offered)
other() { cp -r "$nano" other && sed -i 's/^version = .*/version = "0.2.0"/' other/bundle.toml && "$bundle_tool" seal other; }
check 'another bundle takes its place' eval "other && repo add R other && repo sign R --keys offline && repo publish R --keys online"
refuses 1 'offers' 'what a channel offers is not taken out' "$fleet" repo sign R --keys offline --retire "$(offered)"
check 'what none offers is' eval "repo sign R --keys offline --retire '$before' && repo publish R --keys online"
prune() { repo prune R --json >prune.json; }
check 'and its files are removed' prune
holds 'as it says' prune.json 'rows[0]["targets"] > 0'
check 'after which the repository is whole' show
holds 'and has the one bundle' show.json 'len(rows[0]["bundles"]) == 1 and rows[0]["packs"]["hashed"]'

# --- keys are replaced
mkdir ceremony
cp offline/root-* online/* ceremony
check 'a key is replaced where the root and the online keys come together' repo rotate R --keys ceremony --role timestamp
refuses 1 'timestamp.pem.*not the one' 'the old key publishes nothing more' "$fleet" repo publish R --keys online
cp ceremony/timestamp.pem online
check 'the new key does' repo publish R --keys online
check 'and the repository is whole' show
refuses 1 '1 root keys.*2 must sign' 'one root key alone replaces none' sh -c \
    "rm ceremony/root-[23].pem && exec '$fleet' repo rotate R --keys ceremony --role root"

# --- a timestamp that nobody renews
past() { repo publish R --keys online --expires-days 0; }
check 'a timestamp may end at once' past
refuses 1 'timestamp.json has expired.*repo publish' 'then it is said that no camera takes anything' "$fleet" repo show R
check 'and publishing renews it' repo publish R --keys online
check 'after which all is well' show
finish
