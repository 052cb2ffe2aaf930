# shellcheck shell=bash
# A PostgreSQL of its own, on loopback, for one script. Sourced, not run.
# shellcheck disable=SC2034,SC2154 # what is set here is used by the scripts, and the other way round

# Where Debian keeps what initdb and pg_ctl are.
pg_bin() {
    local newest
    newest=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    if [ -x "$newest/initdb" ]; then echo "$newest"; else dirname "$(command -v initdb)"; fi
}

# PostgreSQL refuses to run as root.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

start_database() {
    pg=$(pg_bin)
    [ -x "$pg/initdb" ] || { echo "PostgreSQL is not installed: apt-get install -y postgresql"; return 1; }
    pg_dir=$(mktemp -d)
    [ "$(id -u)" != 0 ] || chown postgres "$pg_dir"
    # Beside what begin.sh clears away.
    trap 'for child in "${children[@]}"; do kill -KILL "$child" 2>/dev/null; done
          as_postgres "$pg/pg_ctl" -D "$pg_dir/data" -m immediate -w stop >/dev/null 2>&1
          rm -rf "$scratch" "$pg_dir"' EXIT
    pg_port=$(free_port)
    as_postgres "$pg/initdb" -D "$pg_dir/data" -U postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 || return 1
    printf '%s\n' "listen_addresses = '127.0.0.1'" "port = $pg_port" "unix_socket_directories = '$pg_dir'" \
        | as_postgres tee -a "$pg_dir/data/postgresql.conf" >/dev/null
    database_on && as_postgres "$pg/createdb" -h 127.0.0.1 -p "$pg_port" -U postgres fleet || return 1
    database=postgres://postgres@127.0.0.1:$pg_port/fleet
}

database_on() { as_postgres "$pg/pg_ctl" -D "$pg_dir/data" -l "$pg_dir/log" -w -t 60 start >/dev/null; }
# As kill -9 would: no goodbye to anybody, recovery from the log at the next start.
database_off() { as_postgres "$pg/pg_ctl" -D "$pg_dir/data" -m immediate -w stop >/dev/null; }

# tls_only: it then speaks TLS to everybody, with a certificate for localhost, signed by db-ca.pem.
tls_only() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout db-ca.key -out db-ca.pem \
        -subj /CN=db-ca -days 9 2>/dev/null || return 1
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout db.key -out db.csr -subj /CN=db 2>/dev/null
    openssl x509 -req -in db.csr -CA db-ca.pem -CAkey db-ca.key -CAcreateserial -out db.pem -days 9 \
        -extfile <(echo 'subjectAltName=DNS:localhost') 2>/dev/null || return 1
    as_postgres tee "$pg_dir/data/server.crt" <db.pem >/dev/null
    as_postgres tee "$pg_dir/data/server.key" <db.key >/dev/null
    as_postgres chmod 600 "$pg_dir/data/server.key"
    echo 'hostssl all all all trust' | as_postgres tee "$pg_dir/data/pg_hba.conf" >/dev/null
    echo 'ssl = on' | as_postgres tee -a "$pg_dir/data/postgresql.conf" >/dev/null
    database_off && database_on
}

# sql STATEMENT: what it answers, fields parted by |.
sql() { "$pg/psql" -X -q -At -v ON_ERROR_STOP=1 -c "$1" "$database"; }

# is SENTENCE ANSWER STATEMENT
is() { check "$1" answer_is "$2" "$3"; }
answer_is() {
    local got
    got=$(sql "$2") || return 1
    [ "$got" = "$1" ] || { echo "it is $got, not $1"; return 1; }
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
