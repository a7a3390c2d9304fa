-- Idempotent requests make services too, whose ids are in a table of their own: token_id is then the id of the service's token
-- and refers to no row of tokens. A program from before this migration goes on as it did.

-- +goose Up

ALTER TABLE requests DROP CONSTRAINT requests_token_id_fkey;
