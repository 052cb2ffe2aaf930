# shellcheck shell=bash
# A Mosquitto of its own, on loopback, for one script. Sourced, not run.
# shellcheck disable=SC2034,SC2154 # what is set here is used by the scripts, and the other way round

# Debian keeps it where only root looks.
mosquitto=$(PATH=$PATH:/usr/sbin command -v mosquitto)
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# configure_broker: users who may do more or less, one port without TLS and one with; the latter wants a certificate of ours.
configure_broker() {
    mqtt_port=$(free_port) tls_port=$(free_port)
    local name
    mosquitto_passwd -b -c users olga 'a good one' && mosquitto_passwd -b users reader reads || return 1
    for name in mute half; do mosquitto_passwd -b users $name 'a good one' || return 1; done
    make_certificates || return 1
    cat >access <<'END'
user olga
topic readwrite #
user reader
topic read #
user mute
topic read #
user half
topic write lookback/#
END
    cat >broker.conf <<END
user root
per_listener_settings false
allow_anonymous false
password_file $PWD/users
acl_file $PWD/access
persistence true
persistence_location $PWD/broker/
listener $mqtt_port 127.0.0.1
listener $tls_port 127.0.0.1
cafile $PWD/ca.pem
certfile $PWD/broker.pem
keyfile $PWD/broker.key
require_certificate true
END
    mkdir broker
}

# An authority, what it has signed for the broker and for a device, and an authority of somebody else.
make_certificates() {
    local name
    for name in ca other; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.pem \
            -subj "/CN=$name" -days 9 || return 1
    done
    for name in broker device; do
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.csr \
            -subj "/CN=$name" || return 1
        openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $name.pem -days 9 \
            -extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1') || return 1
    done
}

broker_on() {
    "$mosquitto" -c broker.conf >>broker.log 2>&1 </dev/null &
    broker=$!
    children+=("$broker")
    wait_for 20 reads -t '#' -E || { cat broker.log; return 1; }
}
# Politely, so that it keeps what it owes to those who are away.
broker_off() { kill -TERM "$broker" && wait "$broker"; }

# reads OPTION...: a subscriber that is no code of ours.
reads() { mosquitto_sub -h localhost -p "$mqtt_port" -u reader -P reads -q 1 "$@"; }

# listen_to FILE TOPIC: whatever is told there from now on, also after the broker was away.
listen_to() {
    reads -i "listener-$1" -c -t "$2" -E || return 1
    reads -i "listener-$1" -c -t "$2" -F '%j' >"$1" 2>"$1.err" </dev/null &
    listener=$!
    children+=("$listener")
}

# kept TOPIC: the retained message of a topic.
kept() { reads -t "$1" -C 1 -W 5 --retained-only; }
kept_is() { [ "$(kept "$1")" = "$2" ] || { echo "$1 is '$(kept "$1")', not '$2'"; return 1; }; }
