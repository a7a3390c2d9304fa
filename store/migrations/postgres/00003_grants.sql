-- What comes of personal access tokens: short-lived access tokens, and families of refresh tokens. Each names the secret
-- that it came of by its serial, which is what tokens.rotations was then.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION patd_refresh_is_used_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'a refresh token is used once' USING ERRCODE = 'integrity_constraint_violation'; END $$;
-- +goose StatementEnd

-- A family's refresh tokens are made one from another; the newest is the one not used yet.
CREATE TABLE families (
  id            bigint PRIMARY KEY,
  token_id      bigint NOT NULL REFERENCES tokens (id),
  serial        bigint NOT NULL,
  client_id     text,
  authenticated bigint NOT NULL CHECK (authenticated IN (0, 1)),
  scopes        text   NOT NULL CHECK (scopes <> ''),
  audiences     text   NOT NULL CHECK (audiences <> ''),
  issue_us      bigint NOT NULL,
  expire_us     bigint NOT NULL,
  revoke_us     bigint,
  revoked_by    text,
  revoke_reason text,
  CHECK ((revoke_us IS NULL) = (revoked_by IS NULL)),
  CHECK (authenticated = 0 OR client_id IS NOT NULL)
);

CREATE INDEX families_live ON families (token_id, serial, expire_us, revoke_us) WHERE revoke_us IS NULL;
CREATE INDEX families_expire ON families (expire_us);

CREATE TRIGGER families_stay_revoked BEFORE UPDATE OF revoke_us ON families FOR EACH ROW
WHEN (OLD.revoke_us IS NOT NULL AND NEW.revoke_us IS DISTINCT FROM OLD.revoke_us) EXECUTE FUNCTION patd_revocation_is_final();

CREATE TABLE refresh_tokens (
  id       bigint PRIMARY KEY,
  family   bigint NOT NULL REFERENCES families (id),
  key      bigint NOT NULL REFERENCES keys (num),
  digest   bytea  NOT NULL CHECK (length(digest) = 32),
  issue_us bigint NOT NULL,
  use_us   bigint
);

CREATE INDEX refresh_tokens_family ON refresh_tokens (family);

CREATE TRIGGER refresh_tokens_stay_used BEFORE UPDATE OF use_us ON refresh_tokens FOR EACH ROW
WHEN (OLD.use_us IS NOT NULL AND NEW.use_us IS DISTINCT FROM OLD.use_us) EXECUTE FUNCTION patd_refresh_is_used_once();

CREATE TABLE access_tokens (
  id            bigint PRIMARY KEY,
  token_id      bigint NOT NULL REFERENCES tokens (id),
  serial        bigint NOT NULL,
  family        bigint REFERENCES families (id),
  key           bigint NOT NULL REFERENCES keys (num),
  digest        bytea  NOT NULL CHECK (length(digest) = 32),
  scopes        text   NOT NULL CHECK (scopes <> ''),
  audiences     text,
  client_id     text,
  issue_us      bigint NOT NULL,
  expire_us     bigint NOT NULL,
  revoke_us     bigint,
  revoked_by    text,
  revoke_reason text,
  CHECK ((revoke_us IS NULL) = (revoked_by IS NULL))
);

CREATE INDEX access_tokens_live ON access_tokens (token_id, serial, expire_us, revoke_us) WHERE revoke_us IS NULL;
CREATE INDEX access_tokens_family ON access_tokens (family) WHERE family IS NOT NULL;
CREATE INDEX access_tokens_expire ON access_tokens (expire_us);

CREATE TRIGGER access_tokens_stay_revoked BEFORE UPDATE OF revoke_us ON access_tokens FOR EACH ROW
WHEN (OLD.revoke_us IS NOT NULL AND NEW.revoke_us IS DISTINCT FROM OLD.revoke_us) EXECUTE FUNCTION patd_revocation_is_final();

-- An exchange may name an audience by its resource (RFC 8707).
CREATE INDEX audiences_resource ON audiences (resource, id) WHERE resource IS NOT NULL;
