package store

// What must hold of access tokens and families, see invariants. That digests are whole and what rows point to exists,
// the check of the database itself tells.
const (
	checkAccessSerials = `
SELECT a.id FROM access_tokens a JOIN tokens t ON t.id = a.token_id WHERE (a.serial < 0 OR a.serial > t.rotations)
  AND CAST(?1 AS BIGINT) > 0
UNION ALL
SELECT f.id FROM families f JOIN tokens t ON t.id = f.token_id WHERE (f.serial < 0 OR f.serial > t.rotations)
  AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	checkAccessOfFamilies = `
SELECT a.id FROM access_tokens a JOIN families f ON f.id = a.family
WHERE (a.token_id <> f.token_id OR a.revoke_us IS NULL AND a.serial <> f.serial OR a.expire_us > f.expire_us OR a.revoke_us IS NULL
  AND f.revoke_us IS NOT NULL)
  AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	checkUnused = `
SELECT family FROM refresh_tokens INDEXED BY refresh_tokens_family WHERE use_us IS NULL AND CAST(?1 AS BIGINT) > 0
  GROUP BY family HAVING count(*) > 1 LIMIT ?2`

	checkGrantEvents = `
SELECT id FROM (SELECT id, token_id, issue_us FROM access_tokens UNION ALL SELECT id, token_id, issue_us
  FROM families) g
WHERE g.issue_us >= ` + prunedBefore + ` AND NOT EXISTS (SELECT 1 FROM events e WHERE e.token_id = g.token_id
  AND e.action IN ('token.exchange', 'token.refresh') AND e.outcome = 1)
  AND CAST(?1 AS BIGINT) > 0 LIMIT ?2`

	checkGrantRevokeEvents = `
SELECT id FROM (SELECT id, token_id, revoke_us FROM access_tokens UNION ALL SELECT id, token_id, revoke_us
  FROM families) g
WHERE revoke_us IS NOT NULL AND revoke_us >= ` + prunedBefore + ` AND CAST(?1 AS BIGINT) > 0
  AND NOT EXISTS (SELECT 1 FROM events e WHERE e.token_id = g.token_id
  AND e.action IN ('access.revoke', 'family.revoke') AND e.outcome = 1) LIMIT ?2`

	checkGrantRetiredKeys = `
SELECT a.id FROM keys k JOIN access_tokens a ON a.key = k.num JOIN tokens t ON t.id = a.token_id
WHERE k.retire_us IS NOT NULL AND a.revoke_us IS NULL AND a.expire_us > ?1 AND a.expire_us > k.retire_us
  AND a.serial = t.rotations
  AND t.revoke_us IS NULL AND t.expire_us > ?1 AND t.expire_us > k.retire_us
UNION ALL
SELECT r.id FROM keys k JOIN refresh_tokens r ON r.key = k.num JOIN families f ON f.id = r.family
  JOIN tokens t ON t.id = f.token_id
WHERE k.retire_us IS NOT NULL AND r.use_us IS NULL AND f.revoke_us IS NULL AND f.expire_us > ?1
  AND f.expire_us > k.retire_us AND f.serial = t.rotations
  AND t.revoke_us IS NULL AND t.expire_us > ?1 AND t.expire_us > k.retire_us LIMIT ?2`
)

func grantInvariants() []invariant {
	return []invariant{
		{checkAccessSerials, "access token or family %s is of a secret that its token never had"},
		{checkAccessOfFamilies, "access token %s does not agree with its family"},
		{checkUnused, "family %s has more than one refresh token that is not used"},
		{checkGrantEvents, "access token or family %s has no audit event"},
		{checkGrantRevokeEvents, "access token or family %s is revoked without an audit event"},
		{checkGrantRetiredKeys, "access or refresh token %s is live under a retired key"},
	}
}
