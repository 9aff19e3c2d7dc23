-- Refusals of minutes that are not in the journal yet, as counted a second ago at most (daemon/store/refusing.py): so
-- that a crash loses no more than that. A minute that is over moves to the journal in one transaction. Empty text or
-- user 0: none.
CREATE TABLE refusing (
    minute BIGINT NOT NULL,                      -- minutes since 1970
    user_id BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    model TEXT NOT NULL,
    client_label TEXT NOT NULL,
    "user" TEXT NOT NULL,
    address TEXT NOT NULL,                       -- of the first
    at_us BIGINT NOT NULL,                       -- of the first
    number BIGINT NOT NULL,
    PRIMARY KEY (minute, user_id, key_id, reason, model, client_label)
);
