-- What leaves the LAN: who may, and the secrets that providers outside want to see.

ALTER TABLE users ADD COLUMN cloud INTEGER NOT NULL DEFAULT 0;

CREATE TABLE provider_keys (
    name TEXT PRIMARY KEY,                       -- of the upstream
    sealed BLOB NOT NULL,                        -- nonce || AES-256-GCM of the secret; the key lies outside of the database
    set_us BIGINT NOT NULL
);
