-- How much evidence each device has sent on a day (UTC): what one may send is bounded.
CREATE TABLE evidence_day (
    device      text NOT NULL REFERENCES device,
    day         date NOT NULL,
    bytes       bigint NOT NULL,
    PRIMARY KEY (device, day)
);
