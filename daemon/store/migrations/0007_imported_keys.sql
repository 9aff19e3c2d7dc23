-- A key that `gatelodge import` brought: SHA-256 of the token that another gateway issued. It stays when the key is
-- rotated or revoked, so that importing the same file again does not bring the token back.
ALTER TABLE keys ADD COLUMN imported_hash BLOB;
CREATE UNIQUE INDEX keys_imported ON keys (imported_hash) WHERE imported_hash IS NOT NULL;
