-- Where in a trace a change was made, as W3C Trace Context writes it, for what is sent to webhooks. NULL for most: only calls that
-- are sampled have one. A program from before this migration leaves it out, and sends messages without it.

-- +goose Up

ALTER TABLE events ADD COLUMN traceparent TEXT;
ALTER TABLE webhook_deliveries ADD COLUMN traceparent TEXT;
