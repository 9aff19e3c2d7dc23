-- Jobs of the daemon; what an export is of; retention's records found quickly.

CREATE TABLE jobs (                              -- bounded: the oldest ended ones go
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('export', 'verify', 'retention')),
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    actor TEXT NOT NULL,                         -- the account that asked
    target TEXT NOT NULL,                        -- what it is about, in words
    format TEXT,                                 -- of the file, where one is written
    path TEXT,
    size BIGINT,
    sha256 BLOB,
    records BIGINT,
    result TEXT NOT NULL DEFAULT '',
    error TEXT,
    created_us BIGINT NOT NULL,
    started_us BIGINT,
    ended_us BIGINT
);

-- Retention erases only what JSONL holds, which alone loses nothing; an export that a filter narrows covers nobody.
ALTER TABLE exports ADD COLUMN format TEXT;
ALTER TABLE exports ADD COLUMN filter TEXT;

CREATE INDEX journal_admin ON journal (seq) WHERE event = 'admin';
