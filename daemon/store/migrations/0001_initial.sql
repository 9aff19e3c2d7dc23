-- The whole store of the first release. Times are integer microseconds: `*_us` Unix time, `*_clock` the gateway's clock
-- (daemon/clock.py). Booleans are 0 and 1. What PostgreSQL 15 would take as well is preferred where there is a choice.

-- ---- people and credentials -----------------------------------------------------------------------------------------

CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,                  -- stripped and casefolded; `deleted-ID` on a tombstone
    role TEXT NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    service INTEGER NOT NULL DEFAULT 0,          -- a service account has keys and no password
    password_hash TEXT,
    one_time_hash TEXT,                          -- of a one-time password that is only good for setting a new one
    one_time_expires_us BIGINT,
    epoch INTEGER NOT NULL DEFAULT 1,            -- raised to end every session
    version INTEGER NOT NULL DEFAULT 1,          -- raised by every change, for "changed since you looked"
    notes TEXT NOT NULL DEFAULT '',
    inline_auth INTEGER NOT NULL DEFAULT 1,
    body_key BLOB,                               -- 32 random bytes: finds a body stored before; destroyed on deletion
    created_us BIGINT NOT NULL,
    approved_us BIGINT,
    deleted_us BIGINT
);

CREATE TABLE registrations (
    id INTEGER PRIMARY KEY,
    code TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    address TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE INDEX registrations_email ON registrations (email);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id),
    label TEXT NOT NULL DEFAULT '',
    purpose TEXT NOT NULL DEFAULT 'inference' CHECK (purpose IN ('inference', 'metrics')),
    secret_hash BLOB NOT NULL,                   -- SHA-256 of a 256-bit secret
    previous_hash BLOB,                          -- after a rotation, good until previous_until_us
    previous_until_us BIGINT,
    created_us BIGINT NOT NULL,
    expires_us BIGINT,
    revoked_us BIGINT,
    models TEXT NOT NULL DEFAULT '[]',           -- JSON list of patterns; empty: all
    addresses TEXT NOT NULL DEFAULT '[]',        -- JSON list of networks; empty: from anywhere
    in_path INTEGER NOT NULL DEFAULT 0,
    last_used_us BIGINT,
    last_address TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX keys_user ON keys (user_id);

CREATE TABLE refresh_families (
    id TEXT PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id),
    client_id TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    revoked_us BIGINT
);
CREATE INDEX refresh_families_user ON refresh_families (user_id);

CREATE TABLE refresh_tokens (
    token_hash BLOB PRIMARY KEY,
    family_id TEXT NOT NULL REFERENCES refresh_families (id),
    issued_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    used_us BIGINT                               -- a second use revokes the family
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family_id);
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires_us);

CREATE TABLE revoked_tokens (                    -- single access tokens (RFC 7009), until they would have expired anyway
    jti TEXT PRIMARY KEY,
    expires_us BIGINT NOT NULL
);

CREATE TABLE throttle (                          -- failed logins by account+address and by address
    scope TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    last_clock BIGINT NOT NULL,
    blocked_until_clock BIGINT NOT NULL
);

-- ---- limits, settings, time -----------------------------------------------------------------------------------------

CREATE TABLE limits (
    target TEXT NOT NULL,                        -- default, user:…, key:…, model:…, address:…
    field TEXT NOT NULL,
    value BIGINT,                                -- NULL: unlimited
    PRIMARY KEY (target, field)
);

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE clock (                             -- the moment of the last commit: the gateway clock goes on from here
    id INTEGER PRIMARY KEY CHECK (id = 1),
    boot_id TEXT NOT NULL,
    now_us BIGINT NOT NULL,                      -- gateway clock
    wall_us BIGINT NOT NULL,
    boottime_us BIGINT NOT NULL
);

-- ---- audit ----------------------------------------------------------------------------------------------------------

-- Append-only. hash = SHA-256(hash of the record before || JSON array of every other column, in this order): see
-- daemon/audit/chain.py. `opened` carries the request's body, `closed` the answer's; the columns that an event does not
-- need are NULL.
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,                     -- 1, 2, 3 … without a gap
    event TEXT NOT NULL CHECK (event IN ('opened', 'closed', 'refused', 'admin')),
    at_us BIGINT NOT NULL,
    clock_us BIGINT NOT NULL,                    -- opened: of admission; closed: of settlement
    request_id TEXT,
    opened_seq BIGINT,
    user_id BIGINT,
    "user" TEXT,
    key_id TEXT,
    client_label TEXT,
    address TEXT,
    user_agent TEXT,
    route TEXT,
    model_asked TEXT,
    model TEXT,
    upstream TEXT,
    stream INTEGER,
    state TEXT,
    error TEXT,
    sent_upstream INTEGER,
    tokens_in BIGINT,
    tokens_out BIGINT,
    bytes_out BIGINT,
    received_us BIGINT,
    admitted_us BIGINT,
    seated_us BIGINT,
    first_byte_us BIGINT,
    ended_us BIGINT,
    body BLOB,                                   -- ids of its parts (daemon/store/bodies.py)
    body_digest BLOB,                            -- SHA-256 over the commitments of its parts
    detail TEXT,                                 -- JSON; admin: actor, verb, target …; refused: reason, count
    hash BLOB NOT NULL
);
CREATE UNIQUE INDEX journal_request ON journal (request_id) WHERE event = 'opened';
CREATE UNIQUE INDEX journal_end ON journal (opened_seq) WHERE event = 'closed';
CREATE INDEX journal_received ON journal (received_us, seq) WHERE event IN ('opened', 'refused');
CREATE INDEX journal_user ON journal (user_id, received_us, seq) WHERE event IN ('opened', 'refused');
CREATE INDEX journal_model ON journal (model, received_us, seq) WHERE event IN ('opened', 'refused');
CREATE INDEX journal_state ON journal (state, received_us, seq) WHERE state IS NOT NULL;
CREATE INDEX journal_user_end ON journal (user_id, seq) WHERE event = 'closed';

-- What is opened and not closed: a row lives exactly as long as its exchange. Recovery reads it instead of the journal.
CREATE TABLE unfinished (
    request_id TEXT PRIMARY KEY,
    opened_seq BIGINT NOT NULL
);

-- Bodies, split at message boundaries and stored once per user. commitment = SHA-256(salt || text); on erasure salt,
-- lookup and data go, so that what remains tells nothing.
CREATE TABLE parts (
    id INTEGER PRIMARY KEY,
    user_id INTEGER NOT NULL,
    lookup BLOB,                                 -- first 16 bytes of HMAC-SHA-256(users.body_key, text)
    salt BLOB,
    commitment BLOB NOT NULL,
    size INTEGER NOT NULL,                       -- of the text, in bytes; 0 once erased
    compressed INTEGER NOT NULL,
    checksum BIGINT NOT NULL,                    -- CRC-32 of `data` as it lies here; 0 once erased
    data BLOB,
    UNIQUE (user_id, lookup)
);

CREATE TABLE partial (                           -- running answers, in the client's dialect; not chained
    request_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (request_id, n)
);

CREATE TABLE checkpoints (
    seq INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    at_us BIGINT NOT NULL,
    kid TEXT NOT NULL,
    signature BLOB NOT NULL                      -- Ed25519 over this and the checkpoint before
);

CREATE TABLE exports (                           -- exports that were read back and found whole
    id TEXT PRIMARY KEY,
    user_id INTEGER,                             -- NULL: of everybody
    since_us BIGINT,                             -- NULL on both: from the first record to through_seq
    until_us BIGINT,
    through_seq BIGINT NOT NULL,
    sha256 BLOB NOT NULL,
    size BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    where_to TEXT NOT NULL
);
CREATE INDEX exports_user ON exports (user_id, through_seq);
