# shellcheck shell=bash
# What a camera in QEMU is offered: a repository of policies and systems behind a web server. Sourced by run.
# shellcheck disable=SC2154 # what is not set here is set by run

publish() {
    quiet "$fleet" repo add www/lookback "$@" && quiet "$fleet" repo sign www/lookback --keys repo-keys &&
        quiet "$fleet" repo publish www/lookback --keys repo-keys
}

new_policy() {
    cp -r "$nano" second && rm -f second/README.md && sed -i 's/^version = .*/version = "0.2.0"/' second/bundle.toml &&
        "$bundle_tool" seal second && publish second
}

new_system() { publish "$2" --os "lookback-$board" --version "$1"; }

# eventually SECONDS COMMAND...
eventually() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >eventually.out 2>&1; do
        [ $SECONDS -lt $until ] && running || { echo "not within the time; at last:"; cat eventually.out; tail -n 30 "$console"; return 1; }
        sleep 2
    done
}

since_boot() { grep -aE -- "$1" "$console" | sed -nE '1s/^[^[]*\[ *([0-9.]+)\].*/\1/p'; }

web_on() {
    web_port=$(free_port)
    chmod 755 .
    mkdir -p web www
    cat >web/nginx.conf <<END
worker_processes 1;
daemon off;
pid $PWD/web/pid;
error_log $PWD/web/error.log;
events { worker_connections 64; }
http {
    access_log $PWD/web/access.log;
    client_body_temp_path $PWD/web/body;
    proxy_temp_path $PWD/web/proxy;
    fastcgi_temp_path $PWD/web/fastcgi;
    uwsgi_temp_path $PWD/web/uwsgi;
    scgi_temp_path $PWD/web/scgi;
    server { listen 127.0.0.1:$web_port; root $PWD/www; }
}
END
    /usr/sbin/nginx -e "$PWD/web/error.log" -p "$PWD/web" -c "$PWD/web/nginx.conf" >web/out 2>&1 </dev/null &
    children+=($!)
    wait_for 20 curl -s -o /dev/null "http://127.0.0.1:$web_port/" || { cat web/out web/error.log; return 1; }
}
