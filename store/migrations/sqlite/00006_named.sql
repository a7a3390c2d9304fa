-- Whether tokens must name the audience to be good there. A program from before this column passes over it.

-- +goose Up

ALTER TABLE audiences ADD COLUMN require_named INTEGER NOT NULL DEFAULT 0 CHECK (require_named IN (0, 1));
