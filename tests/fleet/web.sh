# shellcheck shell=bash
# A plain web server (Debian's nginx) over the folder www of the folder in which this is sourced. Sourced, not run.

web_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
web_root=$PWD

web_on() {
    chmod 755 "$web_root"
    mkdir -p "$web_root/web" "$web_root/www"
    cat >"$web_root/web/nginx.conf" <<END
worker_processes 1;
daemon off;
pid $web_root/web/pid;
error_log $web_root/web/error.log;
events { worker_connections 64; }
http {
    access_log $web_root/web/access.log;
    client_body_temp_path $web_root/web/body;
    proxy_temp_path $web_root/web/proxy;
    fastcgi_temp_path $web_root/web/fastcgi;
    uwsgi_temp_path $web_root/web/uwsgi;
    scgi_temp_path $web_root/web/scgi;
    server { listen 127.0.0.1:$web_port; root $web_root/www; }
}
END
    /usr/sbin/nginx -e "$web_root/web/error.log" -p "$web_root/web" -c "$web_root/web/nginx.conf" >"$web_root/web/out" 2>&1 </dev/null &
    web=$!
    children+=("$web")
    wait_for 20 curl -s -o /dev/null "http://127.0.0.1:$web_port/" || { cat "$web_root"/web/{out,error.log}; return 1; }
}
web_off() { kill "$web" && wait "$web"; true; }
