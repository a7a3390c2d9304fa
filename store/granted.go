package store

import (
	"fmt"
	"math"

	"patd/store/internal/db"
	"patd/tokens"
)

// grantedSlots is how many scopes the database looks for. If there are more, it returns every live token, and patd
// looks.
const grantedSlots = 8

// selectGranted reads along the index of users' tokens. ?1 and ?2 bound the users, ?3 and ?4 are the last token of the
// batch before, ?5 is now and ?6 the limit. The rest are scopes; an empty ?7 stands for any.
func selectGranted() string {
	scopes := `?7 = ''`
	for i := 7; i < 7+grantedSlots; i++ {
		scopes += fmt.Sprintf(` OR ?%d <> '' AND instr(' ' || t.scopes || ' ', ' ' || ?%d || ' ') > 0`, i, i)
	}
	return `SELECT ` + usedColumns + `
FROM tokens t INDEXED BY tokens_user CROSS JOIN users u ON u.key = t."user" ` + joinUse + `
WHERE t."user" >= ?1 AND t."user" <= ?2 AND (t."user" > ?3 OR t.id > ?4) AND ` + liveUntil + ` > ?5
  AND (` + scopes + `)
ORDER BY t."user", t.id LIMIT ?6`
}

// Granted implements tokens.InventoryReader.
func (t *readTx) Granted(q tokens.GrantedQuery) ([]tokens.Token, error) {
	first, last, after, id := int64(math.MinInt64), int64(math.MaxInt64), int64(math.MinInt64), above(0)
	if q.User != 0 {
		first, last = q.User, q.User
	}
	if q.AfterUser != 0 {
		first, after, id = q.AfterUser, q.AfterUser, int64(q.AfterID)
	}
	args := []any{first, last, after, id, db.Micros(q.Now), q.Limit}
	for i := range grantedSlots {
		scope := ""
		if i < len(q.Scopes) && len(q.Scopes) <= grantedSlots {
			scope = q.Scopes[i]
		}
		args = append(args, scope)
	}
	return t.listTokens("list the tokens that were granted a scope", selectGranted(), args...)
}
