-- Which scopes of a user's tokens were in effect no more when another system, which has the features, was last found to say
-- something else: an event says each time what became suspended or restored. asked_us is when it was asked, so that an older
-- answer of another server changes nothing. No decision rests on it. A program from before this migration writes no such events.

-- +goose Up

CREATE TABLE suspended_scopes (
  "user"   bigint NOT NULL PRIMARY KEY REFERENCES users (key),
  scopes   text   NOT NULL,
  asked_us bigint NOT NULL
);
