#!/bin/bash
# Events at an MQTT broker, and numbers for Prometheus: Debian's Mosquitto listens in, over TCP and TLS, while the
# broker, the device and the passwords fail.
# shellcheck source=tests/commands/begin.sh
. "$(dirname "${BASH_SOURCE[0]}")/../commands/begin.sh"
# shellcheck source=tests/fleet/broker.sh
. "$repository/tests/fleet/broker.sh"

check 'a broker of its own is set up' configure_broker || finish
check 'and starts' broker_on || finish
check 'a stranger listens' listen_to heard.jsonl '#' || finish

# configure FILE BROKER PASSWORD-FILE [LINE...]: a device called gate-7, and more lines in [mqtt].
configure() {
    printf '[device]\nname = "gate-7"\n[mqtt]\nbroker = "%s"\nusername = "olga"\npassword_file = "%s"\n' "$2" "$3" >"$1"
    printf '%s\n' "${@:4}" >>"$1"
}
printf 'a good one\n' >password
printf 'a bad one\n' >wrong
plain=mqtt://127.0.0.1:$mqtt_port
configure plain.toml "$plain" password
root=lookback/gate-7

# watch_minutes CONFIG SEED MINUTES: to its end, at full speed.
watch_minutes() {
    timeout 300 "$lookback" run --config "$1" --camera "sim:seed=$2,minutes=$3,speed=max" --data-dir D --json --updates \
        >"run-$2.jsonl" 2>run.err </dev/null
}
# in_real_time CONFIG [DIRECTORY]: in the background, until it is interrupted.
in_real_time() { in_background "$lookback" run --config "$1" --camera sim:seed=9001,minutes=9 --data-dir "${2:-D}" --json; }
log_to() { "$lookback" events --data-dir D --json --limit 1000 >"$1"; }
# tells FILE [LOG]
tells() { python3 "$repository/tests/fleet/heard.py" "$@"; }
said() { grep -qE -- "$1" child.err; }
# noted_once WORDS: one sentence about the broker, and only one.
noted_once() {
    [ "$(grep -cE '^note: .*(MQTT|broker)' child.err)" = 1 ] && grep -qE "^note: .*$1" child.err || { cat child.err; return 1; }
}

# --- what is told
check 'it watches, and tells the broker' watch_minutes plain.toml 9001 3
log_to log.jsonl
check 'of every incident the new, what follows, and the end, in order, with all its words at once' tells heard.jsonl log.jsonl
topics() { python3 -c "import json; print(*sorted({json.loads(l)['topic'] for l in open('$1')}), sep='\n')"; }
topics heard.jsonl >topics
for topic in available event/sim-0 camera/sim-0/incident camera/sim-0/last onvif-ej/RuleEngine/Incident/sim-0; do
    check "there is $topic" grep -qx "$root/$topic" topics
done
check 'in the end it says that it goes' kept_is "$root/available" offline
check 'and that nothing goes on' kept_is "$root/camera/sim-0/incident" OFF
holds 'while something did in between' heard.jsonl "
    any(r['payload'] == 'ON' for r in rows if r['topic'] == '$root/camera/sim-0/incident')"
kept "$root/camera/sim-0/last" >last.jsonl
holds 'the last incident is there for those who come later' last.jsonl "rows[0]['type'] == 'end' and rows[0]['sentence']"
python3 -c "import json
for line in open('heard.jsonl'):
    m = json.loads(line)
    if '/onvif-ej/' in m['topic']: print(m['payload'])" >onvif.jsonl
holds 'a video management system gets what it knows from ONVIF' onvif.jsonl "
    len(rows) > 1 and rows[0]['Data']['State'] and not rows[-1]['Data']['State'] and
    all(set(r) == {'UtcTime', 'Source', 'Key', 'Data'} and r['Source']['VideoSource'] == 'sim-0' for r in rows)"
kept homeassistant/device/lookback-gate-7/config >discovered.jsonl
holds 'Home Assistant finds the device, and of each camera its entities' discovered.jsonl "
    rows[0]['availability_topic'] == '$root/available' and rows[0]['origin']['name'] == 'lookback' and
    sorted(c['platform'] for c in rows[0]['components'].values()) == ['binary_sensor', 'sensor', 'sensor'] and
    all(c['unique_id'] == i for i, c in rows[0]['components'].items())"
python3 -c "import json
for c in json.load(open('discovered.jsonl'))['components'].values(): print(c['state_topic'])" | sort -u >states
all_kept() { while read -r topic; do [ -n "$(kept "$topic")" ] || { echo "nothing at $topic"; return 1; }; done <states; }
check 'whose states are there' all_kept

printf '[device]\nname = "a/+#"\n[mqtt]\nbroker = "%s"\nusername = "olga"\npassword_file = "password"\n' "$plain" >odd.toml
printf '[[camera]]\nname = "x/+/#"\nsource = "sim:seed=1,minutes=0.1,speed=max"\n' >>odd.toml
check 'names that mean something to a broker are only names' quiet "$lookback" run --config odd.toml --data-dir odd --json
topics heard.jsonl | grep -v "^$root/" >topics
check 'and get topics of their own' grep -qE '^lookback/a----[0-9a-f]{16}/camera/x-----[0-9a-f]{16}/incident$' topics

# --- a camera that the device no longer has
with_cameras() {
    configure "$1" "$plain" password 'discovery = "found"'
    # In which nothing happens: the listener holds what it hears against another log.
    for camera in "${@:2}"; do
        printf '[[camera]]\nname = "%s"\nsource = "sim:seed=1,minutes=0.1,speed=max"\n' "$camera" >>"$1"
    done
}
with_cameras two.toml door yard
with_cameras one.toml door
check 'a device with two cameras watches' quiet "$lookback" run --config two.toml --data-dir parted --json
check 'and then with one' quiet "$lookback" run --config one.toml --data-dir parted --json
kept found/device/lookback-gate-7/config >discovered.jsonl
holds 'Home Assistant is told to remove the entities of the other, and to keep those of the one' discovered.jsonl "
    sorted((len(c) > 1, c['platform']) for c in rows[0]['components'].values()) == [
        (False, 'binary_sensor'), (False, 'sensor'), (False, 'sensor'),
        (True, 'binary_sensor'), (True, 'sensor'), (True, 'sensor')]"
nothing_kept() { [ -n "$(kept "$root/camera/door/incident")" ] && [ -z "$(kept "$root/camera/yard/incident")" ]; }
check 'and the broker keeps nothing of it' nothing_kept

# --- the device fails, the broker fails
in_real_time plain.toml
check 'a device that watches is online' wait_for 30 kept_is "$root/available" online
{ kill -KILL "$child" && wait "$child"; } 2>/dev/null
check 'one that is killed is offline, by its last will' wait_for 20 kept_is "$root/available" offline

broker_off
check 'without a broker it watches all the same' watch_minutes plain.toml 9002 3
check 'and finds something' test -s run-9002.jsonl
check 'the broker comes back' broker_on || finish
check 'the next watch tells what waited' watch_minutes plain.toml 9003 2
log_to log.jsonl
check 'nothing is missing, nothing is out of order' tells heard.jsonl log.jsonl

watch_minutes plain.toml 9004 6 &
watching=$!
sleep 4
broker_off
sleep 3
check 'the broker is away for a while' broker_on || finish
check 'a watch goes on over it' wait "$watching"
check 'and another' watch_minutes plain.toml 9005 2
log_to log.jsonl
check 'nothing is missing, nothing is out of order, after that too' tells heard.jsonl log.jsonl

# --- TLS
configure tls.toml "mqtts://localhost:$tls_port" password 'ca = "ca.pem"' 'certificate = "device.pem"' 'key = "device.key"'
check 'it watches, and tells over TLS, with a certificate of its own' watch_minutes tls.toml 9006 3
log_to log.jsonl
check 'all of which was heard' tells heard.jsonl log.jsonl
check 'doctor finds the broker' quiet "$lookback" doctor --config tls.toml --data-dir D --json
holds 'and says so' quiet.out "any(c['name'] == 'mqtt broker' and c['status'] == 'ok' for r in rows for c in r['checks'])"

# --- what is wrong with a configuration is one sentence, and watching goes on
configure other-ca.toml "mqtts://localhost:$tls_port" password 'ca = "other.pem"'
configure no-certificate.toml "mqtts://localhost:$tls_port" password 'ca = "ca.pem"'
configure wrong-password.toml "$plain" wrong
configure nobody.toml "mqtt://127.0.0.1:$(free_port)" password
# wrongs CONFIG WORDS SENTENCE
wrongs() {
    in_real_time "$1"
    check "$3 is told" wait_for 60 said "^note: .*$2"
    sleep 3
    check '... once' noted_once "$2"
    check '... while it watches' interrupted
    "$lookback" doctor --config "$1" --data-dir D >doctor.out 2>&1
    check '... and doctor says so too' grep -qE "mqtt broker +.*$2" doctor.out
}
wrongs other-ca.toml 'certificate that is not believed .*\[mqtt\] ca' 'a broker of another authority'
wrongs wrong-password.toml 'refuses this user name and password' 'a wrong password'
wrongs nobody.toml 'cannot reach the MQTT broker .*\[mqtt\] broker' 'that nobody answers'
sed 's/olga/mute/' plain.toml >mute.toml
wrongs_told() { in_real_time "$1" && wait_for 60 said "^note: .*$2"; }
check 'that it may not publish is told' wrongs_told mute.toml "does not take '.*' from this device .*\\[mqtt\\] prefix"
check '... while it watches' interrupted
sed 's/olga/half/' plain.toml >half.toml
check 'that it may not tell Home Assistant is told' wrongs_told half.toml 'Home Assistant is not told of this device'
check '... while the broker hears the rest' wait_for 20 kept_is "$root/available" online
check '... and it watches' interrupted
in_real_time no-certificate.toml
check 'a broker that wants a certificate is told of' wait_for 60 said '^note: .*MQTT broker'
check '... while it watches' interrupted
in_real_time plain.toml
first=$child
mv child.err first.err
wait_for 30 kept_is "$root/available" online
in_real_time plain.toml D2
check 'two devices of one name are told of' wait_for 60 grep -qE '^note: .* throws this device out, .*\[device\] name' first.err child.err
check '... while both watch' interrupted
child=$first
check '... and end as they should' interrupted
no_password() { ! grep -rlE 'a good one|a bad one' D D2 odd ./*.jsonl ./*.err ./*.out; }
check 'no password is in any log, event or report' no_password
configure no-file.toml "$plain" nowhere
refuses 1 "\[mqtt\] password_file 'nowhere' cannot be read" 'a password that is not there is refused' \
    "$lookback" run --config no-file.toml --camera sim:seed=1,minutes=0.1,speed=max --data-dir D
configure tcp.toml "tcp://127.0.0.1" password
refuses 1 'mqtt://HOST' 'a broker that is none is refused with its line' "$lookback" config --config tcp.toml

# --- numbers for Prometheus
metrics_port=$(free_port)
{ cat plain.toml; printf '[metrics]\nlisten = "127.0.0.1:%s"\n' "$metrics_port"; } >metrics.toml
scrape() { curl -sf --max-time 30 "http://127.0.0.1:$metrics_port/metrics" >"${1:-scraped}"; }
in_real_time metrics.toml
check 'numbers are told while it watches' wait_for 30 scrape
# number NAME FILE: the sum of a family's samples.
number() { awk -v name="$1" '{ split($1, part, "{") } part[1] == name { sum += $2; found = 1 } END { if (!found) exit 1; print sum }' "$2"; }
grows() { scrape later && [ "$(number "$1" later)" -gt "$(number "$1" scraped)" ]; }
check 'they grow' wait_for 30 grows lookback_frames_captured_total
connected() { scrape && [ "$(number lookback_mqtt_connected scraped)" = 1 ]; }
check 'the broker is among them' wait_for 30 connected
well_formed() {
    python3 - scraped "$repository/fleet/METRICS.md" <<'END'
import re, sys
listed = set(re.findall(r"^\| `(lookback_\w+)` .* camera \|$", open(sys.argv[2]).read(), re.M))
sample = re.compile(r'(lookback_\w+?)(_bucket|_sum|_count)?(\{(\w+="(\\.|[^"\\\n])*",?)+\})? [0-9.e+-]+')
told = set()
for line in open(sys.argv[1]).read().splitlines():
    if line.startswith("# TYPE "):
        told.add(line.split()[2])
    elif not line.startswith("# HELP "):
        assert sample.fullmatch(line), f"this is no sample: {line}"
assert told == listed, f"told and not listed, or the other way round: {told ^ listed}"
END
}
check 'each is one that the list has, and well formed' well_formed
junk() { for _ in {1..20}; do head -c 100000 /dev/urandom | timeout 5 bash -c "cat >/dev/tcp/127.0.0.1/$metrics_port" 2>/dev/null; done; scrape; }
check 'junk does not keep it from answering' junk
crowd() {
    python3 - "$metrics_port" <<'END'
import socket, sys, urllib.request
crowd = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(200)]
for one in crowd[:50]:
    one.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ")
urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/metrics", timeout=60).read()
END
}
check 'nor does a crowd that never asks' crowd
refuses 1 '\[metrics\] listen' 'a port that is taken is refused' "$lookback" run --config metrics.toml \
    --camera sim:seed=1,minutes=0.1,speed=max --data-dir D3
check 'and all the while it watches' interrupted
kill "$listener"
check 'the broker ends' broker_off
check 'nothing panicked in all of this' bash -c '! grep -n panicked ./*.err'
finish
