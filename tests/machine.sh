# shellcheck shell=bash
# What tests/run and tests/long need of the machine, and how it is installed if it is missing.
# Sourced, not run.

# needs COMMAND PACKAGE: remembers the Debian package if the command is not there.
needs() {
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

# Installs what `needs` found missing. The package lists are read only then, and once.
install_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "tests: please install ${missing[*]}; this machine has no apt-get to do it with" >&2
        return 1
    fi
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            echo "tests: please run \`sudo apt-get install ${missing[*]}\`, then this again" >&2
            return 1
        fi
        as_root=(sudo -n)
    fi
    echo "installing ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { "${as_root[@]}" apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq \
            --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "tests: apt-get could not install ${missing[*]}" >&2
        return 1
    fi
    rm -f "$log"
    missing=()
}

# no_service NAME: ends the service that a package has just started and enabled, where there is a systemd.
no_service() {
    [ -d /run/systemd/system ] || return 0
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    "${as_root[@]}" systemctl disable --quiet --now "$1"
}

missing=()
