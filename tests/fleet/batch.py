"""`batch.py incidents DEVICE EPOCH SEQ...`, `batch.py dropped DEVICE EPOCH SEQ SPANS` or
`batch.py policy DEVICE EPOCH SEQ FIELDS`: a batch on stdout."""

import json
import os
import sys


def envelope(device, epoch, seq):
    """What every event of the contract has."""
    return {
        "specversion": "1.0",
        "id": f"{epoch}-{seq}",
        "source": f"urn:lookback:device:{device}",
        "time": "2026-11-03T12:34:56.789Z",
        "datacontenttype": "application/json",
        "sequence": f"{seq:020}",
        "epoch": epoch,
        "severity": "alert",
        "phase": "new",
        "clock": "ntp",
        "recordedtime": "2026-11-03T12:35:00.000Z",
    }


def incident(device, epoch, seq):
    """An incident; the environment may give its TEXT and PICTURE."""
    text = os.environ.get("TEXT", "")
    picture = os.environ.get("PICTURE", "0" * 64)
    frames = [{"id": "0-1", "t_s": 1.5, "hash": picture}]
    look = {"step": 0, "op": "glance", "args": {"x": 7, "start": 0, "end": 9, "why": text}, "frames": frames,
            "thought": f"Is someone there? {text}", "p": 0.31, "tokens": [1, 2]}
    end = {"step": 1, "op": "final", "args": {"verdict": "anomalous", "clips": [
        {"start": 1, "end": 2, "label": f"fall{text}", "evidence": [1]}]},
        "frames": [], "thought": "", "p": 0.83, "tokens": [3],
        "hypothesis": {"clips": [{"span": [1, 2], "label": f"fall{text}", "evidence": [1], "missing": text}]}}
    return envelope(device, epoch, seq) | {
        "type": "dev.lookback.incident",
        "subject": "front door" + text,
        "data": {"id": f"{epoch[-8:]}{seq:08}", "seq": seq, "kind": "incident", "phase": "new", "label": "fall" + text,
                 "score": 0.83, "sentence": "Someone fell." + text, "end": "2026-11-03T12:34:58.000Z",
                 "bundle": "nano 1" + text, "engine": "tract", "stopped_by": "final", "clips": [],
                 "trajectory": [look, end], "evidence": [{"frame_id": "0-1", "media_time": 1.5, "hash": picture}]},
    }


def health(device, epoch, seq, label, sentence, fields):
    """Something that happened to the device."""
    return envelope(device, epoch, seq) | {
        "type": "dev.lookback.health",
        "data": {"id": f"{epoch[-8:]}{seq:08}", "kind": "health", "label": label, "score": None,
                 "sentence": sentence, "end": "2026-11-03T12:34:56.789Z", "trajectory": None,
                 "fields": fields},
    }


def dropped(device, epoch, seq, spans):
    """The event that says which seqs will never come."""
    return health(device, epoch, seq, "events dropped", "3 events were dropped.", {"seqs": spans})


def policy(device, epoch, seq, fields):
    """The event that says where an update stands."""
    return health(device, epoch, seq, "policy", "the policy goes its way", fields)


what, device, epoch, *rest = sys.argv[1:]
if what == "incidents":
    batch = [incident(device, epoch, int(seq)) for seq in rest]
elif what == "policy":
    batch = [policy(device, epoch, int(rest[0]), json.loads(rest[1]))]
else:
    batch = [dropped(device, epoch, int(rest[0]), json.loads(rest[1]))]
json.dump(batch, sys.stdout)
