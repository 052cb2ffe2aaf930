# shellcheck shell=bash
# Its power is cut, again and again. Sourced by run.
# shellcheck disable=SC2154 # what is not set here is set by run

part_cuts() {
    RANDOM=$seed
    rm -rf console-*.log www repo-keys second
    check 'a web server starts' web_on || return
    check 'a repository is made' quiet "$fleet" repo init www/lookback --keys repo-keys || return
    cp www/lookback/metadata/1.root.json root.json
    local versions=(0.2.0 0.3.0 0.4.0) number took=60 next=0
    # For a handful of cuts no new systems are built.
    [ "$cuts" -ge 8 ] || versions=()
    check 'a new policy is published' new_policy || return
    check 'it is flashed' flash "$(image_of 0.1.0)" 3
    check 'and set up' set_up_to_be_cut
    for number in $(seq "$cuts"); do
        # Something is on its way most of the time: a policy at first, then one system after the other.
        if [ $(((number - 1) % (cuts / 4 + 1))) = $((cuts / 8)) ] && [ "$next" -lt ${#versions[@]} ]; then
            check "system ${versions[next]} is published" another_system "${versions[next]}" || return
            next=$((next + 1))
        fi
        moment
        power_on
        if [ "$phase" = starting ]; then
            sleep "$after_s"
        else
            local begun=$SECONDS
            check "cut $seed.$number: it starts again" it_watches || return
            took=$((SECONDS - begun))
            sleep "$after_s"
        fi
        power_cut "$seed.$number" >cut.out 2>&1 || { check "cut $seed.$number: it is known what the disk holds" not_known; return; }
        echo "cut $seed.$number ($phase, $after_s s, $(doing)): $(cat cut.out)" | tee -a account.log
    done
    check "after $cuts power cuts from seed $seed it starts" settled
    check 'and goes on telling events' saw '"id":' "$(within 240)"
    power_cut last --orderly
    told >told.ids
    echo "     | $(wc -l <told.ids) events were told; of the cuts $(grep -c starting account.log) while it started, $(grep -vc 'no update' account.log) while something new was on its way"
    check 'every event that was told is in the log, with its evidence' with_data nothing_is_lost
    check 'and the file system is sound' data_is_sound
}

# What is fetched comes slowly, so that there is time to cut it.
set_up_to_be_cut() {
    { busy cut; cat; } >lookback.toml <<END
[update]
repository = "http://10.0.2.2:$web_port/lookback"
root = "/data/config/root.json"
poll_hours = 0.005
trial_minutes = 0.5
kilobytes_per_s = 3000
[os]
channel = "os-stable"
confirm_minutes = 0.5
END
    set_up lookback.toml root.json
}

not_known() { cat cut.out; false; }

another_system() { image "$1" && new_system "$1" "$(bundle_of "$1")"; }

# When the next cut comes: in one of three while it starts, else while it watches.
moment() {
    if [ $((RANDOM % 3)) = 0 ]; then
        phase=starting after_s=$((took / 8 + RANDOM % (took + 1)))
    else
        phase=watching after_s=$((RANDOM % 60))
    fi
    after_s=$after_s.$((RANDOM % 10))
}

# What of an update it told last; of something that has come to its end, nothing.
doing() {
    local boot
    for boot in $(seq "$boots"); do cat "console-$boot.log"; done | tr -d '\r' | grep -aoE 'note: the (policy|system) .*' | tail -n 1 |
        grep -oE 'being fetched|has come|laid out|on trial|installed in the other slot|has started' || echo 'no update'
}

# It starts into a system that is good; a new one may have to be confirmed first.
settled() {
    local try
    for try in 1 2 3; do
        power_on
        it_watches || return 1
        ! saw "system [AB] is good" 20 >/dev/null || return 0
        echo "start $try: a new system, which is to be confirmed"
        sleep 150
        power_cut "settling $try"
    done
    echo 'no system is good'
    tail -n 40 "$console"
    return 1
}
