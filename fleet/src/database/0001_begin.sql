-- What a fleet is, and what its cameras have told.

-- A camera, from its enrolment on. Never deleted: its events outlive it.
CREATE TABLE device (
    id          text PRIMARY KEY,
    name        text,
    -- SHA-256 of the certificate's DER: how a connection's device is known.
    certificate bytea NOT NULL UNIQUE,
    agent       text NOT NULL,
    enrolled    timestamptz NOT NULL DEFAULT now(),
    revoked     timestamptz
);

-- One-time tokens. Only the hash of the secret is here: who reads the database cannot enrol.
CREATE TABLE enrolment_token (
    secret_hash bytea PRIMARY KEY,
    name        text,
    made        timestamptz NOT NULL DEFAULT now(),
    expires     timestamptz NOT NULL,
    device      text REFERENCES device
);

-- One row per life of a camera's event log: what of it is received. Every batch locks its row first, so
-- that whatever is stored twice is seen here; the table of events needs no unique index, which could
-- not span its partitions.
CREATE TABLE ledger (
    device      text NOT NULL REFERENCES device,
    epoch       text NOT NULL,
    -- Every seq from 1 to this one is committed or dropped.
    committed   bigint NOT NULL DEFAULT 0,
    -- Stretches beyond, [first, last] each, ascending.
    ahead_first bigint[] NOT NULL DEFAULT '{}',
    ahead_last  bigint[] NOT NULL DEFAULT '{}',
    events      bigint NOT NULL DEFAULT 0,
    dropped     bigint NOT NULL DEFAULT 0,
    seen        timestamptz NOT NULL DEFAULT now(),
    -- The sentence of the newest event of health.
    health      text,
    PRIMARY KEY (device, epoch)
) WITH (fillfactor = 50);

-- Every change of every event, by the month in which it was received. A month is one partition, made on
-- demand, and is taken away whole when its time is over.
CREATE TABLE event (
    received    timestamptz NOT NULL,
    device      text NOT NULL,
    epoch       text NOT NULL,
    seq         bigint NOT NULL,
    event       text NOT NULL,
    kind        text NOT NULL,
    phase       text NOT NULL,
    level       smallint NOT NULL,
    camera      text,
    label       text NOT NULL,
    score       real,
    sentence    text NOT NULL,
    began       timestamptz NOT NULL,
    ended       timestamptz NOT NULL,
    clock       text NOT NULL,
    recorded    timestamptz NOT NULL,
    data        jsonb NOT NULL,
    dataref     text
) PARTITION BY RANGE (received);

CREATE INDEX event_changes ON event (device, event, seq);
CREATE INDEX event_began ON event (began DESC);
CREATE INDEX event_words ON event
    USING gin (to_tsvector('simple', label || ' ' || sentence || ' ' || coalesce(camera, '')));

-- Objects that cameras uploaded. The object itself is a file; it counts only once that is there whole.
CREATE TABLE evidence (
    hash        text PRIMARY KEY,
    bytes       bigint NOT NULL,
    media_type  text NOT NULL,
    device      text NOT NULL REFERENCES device,
    received    timestamptz NOT NULL DEFAULT now()
);

-- People.
CREATE TABLE person (
    name        text PRIMARY KEY,
    role        text NOT NULL CHECK (role IN ('operator', 'viewer')),
    password    text NOT NULL,
    made        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE session (
    secret_hash bytea PRIMARY KEY,
    person      text NOT NULL REFERENCES person ON DELETE CASCADE,
    -- What a form must bring along, so that it was this server that made it.
    form_token  text NOT NULL,
    expires     timestamptz NOT NULL
);

-- Who did what.
CREATE TABLE audit (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    person      text NOT NULL,
    action      text NOT NULL,
    subject     text NOT NULL
);
CREATE INDEX audit_person ON audit (person, at);

-- How many seqs are missing below the highest that is there. Not the lengths of the gaps one by one:
-- the highest, less the mark, less what is there beyond it.
CREATE FUNCTION missing(l ledger) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN cardinality(l.ahead_last) = 0 THEN 0 ELSE
        l.ahead_last[cardinality(l.ahead_last)] - l.committed - (
            SELECT sum(last - first + 1)::bigint FROM unnest(l.ahead_first, l.ahead_last) AS s(first, last))
    END
$$;
