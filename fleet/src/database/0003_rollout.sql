-- Where each device stands with what a channel offered it: the newest that it told.
CREATE TABLE rollout (
    channel     text NOT NULL,
    number      bigint NOT NULL,
    device      text NOT NULL REFERENCES device,
    bundle      text NOT NULL,
    -- Counted from 1; 0 if the device did not say.
    wave        integer NOT NULL,
    stage       text NOT NULL,
    why         text,
    -- What told it.
    epoch       text NOT NULL,
    seq         bigint NOT NULL,
    changed     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (channel, number, device)
);

-- Rollouts that no device should begin. One that goes on again keeps its row, so that the stop rule does not
-- halt it a second time.
CREATE TABLE halt (
    channel     text NOT NULL,
    number      bigint NOT NULL,
    person      text NOT NULL,
    why         text NOT NULL,
    halted      timestamptz NOT NULL DEFAULT now(),
    resumed     timestamptz,
    PRIMARY KEY (channel, number)
);
