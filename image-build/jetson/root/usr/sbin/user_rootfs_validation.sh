#!/bin/sh
# NVIDIA's l4t-rootfs-validation-config runs this at each boot, before its nv-l4t-bootloader-config marks the system as
# sound; if it fails, the board starts anew. So a system that is on trial is not marked before the agent has confirmed it,
# by RAUC, and one that is not confirmed in time makes room for the one before it.
set -u
backend=${LOOKBACK_BACKEND:-/usr/lib/lookback/nvbootctrl-rauc}
systemctl=${LOOKBACK_SYSTEMCTL:-systemctl}
trial=${LOOKBACK_TRIAL:-/data/rauc/trial}
confirmed=${LOOKBACK_CONFIRMED:-/data/lookback/os/confirmed}
cmdline=${LOOKBACK_CMDLINE:-/proc/cmdline}
deadline_s=${LOOKBACK_DEADLINE_S:-900}
steady_s=${LOOKBACK_STEADY_S:-60}
step_s=${LOOKBACK_STEP_S:-5}

on_trial() { [ "$(cat "$trial" 2>/dev/null)" = "$current" ]; }
say() { echo "lookback: $*"; }

# Where there is only one system there is nothing to decide.
current=$("$backend" get-current) || exit 0
on_trial || exit 0

say "$current is new: it has $((deadline_s / 60)) minutes to be confirmed"
root=$(tr ' ' '\n' <"$cmdline" | sed -n 's/^lookback\.root=//p' | tail -n 1)
steady=0 waited=0
while [ "$waited" -lt "$deadline_s" ]; do
    on_trial || { say "$current was confirmed"; exit 0; }
    if "$systemctl" is-active --quiet lookback.service; then steady=$((steady + step_s)); else steady=0; fi
    # The agent confirms nothing where the same system was confirmed before, or where it cannot tell which one runs.
    if [ "$steady" -gt "$steady_s" ] && { [ -z "$root" ] || grep -qx "$root" "$confirmed" 2>/dev/null; }; then
        "$backend" set-state "$current" good || exit 1
        say "$current watches, and is confirmed"
        exit 0
    fi
    sleep "$step_s"
    waited=$((waited + step_s))
done

case $current in APP) other=APP_b ;; *) other=APP ;; esac
# A system that does not watch is still better than none.
[ "$("$backend" get-state "$other")" = good ] || { say "$current does not watch, but there is no other system"; exit 0; }
say "$current was not confirmed in time; $other starts"
"$backend" set-state "$current" bad && "$backend" set-primary "$other"
exit 1
