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
