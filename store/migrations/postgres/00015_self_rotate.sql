-- self_rotate_until_us lets the bearer of a token rotate it. NULL: it may not; 0: it may, and the expiry stays; else until when
-- it may renew the token at most. A program from before this migration never writes it. self_mac is its keyed checksum.

-- +goose Up

ALTER TABLE tokens ADD COLUMN self_rotate_until_us bigint;
ALTER TABLE tokens ADD COLUMN self_mac bytea;
