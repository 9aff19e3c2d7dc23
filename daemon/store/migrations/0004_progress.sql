-- When a running exchange was seated and first answered, so that one that a crash ends is known to have been; written
-- with the segments of its answer.
ALTER TABLE unfinished ADD COLUMN seated_us BIGINT;
ALTER TABLE unfinished ADD COLUMN first_byte_us BIGINT;
