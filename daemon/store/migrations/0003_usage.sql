-- Who used what, added up by the hour in which an exchange was received, from the journal's records up to `seq`
-- (daemon/store/usage.py). Derived: emptied, with seq = 0, it fills itself again. Empty text: none.
CREATE TABLE usage_hours (
    hour BIGINT NOT NULL,                        -- hours since 1970
    "user" TEXT NOT NULL,
    model TEXT NOT NULL,
    key_id TEXT NOT NULL,
    client_label TEXT NOT NULL,
    requests BIGINT NOT NULL,
    tokens_in BIGINT NOT NULL,
    tokens_out BIGINT NOT NULL,
    gpu_us BIGINT NOT NULL,
    ok BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    departures BIGINT NOT NULL,
    cut BIGINT NOT NULL,
    refusals BIGINT NOT NULL,
    PRIMARY KEY (hour, "user", model, key_id, client_label)
);

CREATE TABLE usage_through (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seq BIGINT NOT NULL
);
INSERT INTO usage_through (id, seq) VALUES (1, 0);
