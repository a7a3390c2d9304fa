package store

import (
	"strconv"
	"strings"
)

// way is a path through the tokens: an index, and the range of it that is read, with both ends. $LO, $HI and $KEY stand
// for parameters, $DESC for the direction.
type way struct {
	from, where string
	by          string // the columns of its order
	end         string // the column that says how far a stretch goes
	key         []any  // the value of $KEY, if where has it
	rows        int    // of a stretch; 0: inventoryStretch
}

// Ways in the order of ids, which is that of issue.
func wayToken() way {
	return way{from: `tokens t`, where: `t.id >= $LO AND t.id <= $HI`, by: `t.id $DESC`, end: `t.id`}
}

// A user's tokens in some state, which are sorted unless they are revoked. A stretch of them is no longer than a page
// needs, if all match.
func wayUser(key int64, state string, rows int) way {
	by := `+t.id $DESC`
	if state == userRevoked {
		by = `t.id $DESC`
	}
	return way{
		from:  `tokens t INDEXED BY tokens_user`,
		where: `t."user" = $KEY AND t.id >= $LO AND t.id <= $HI` + state,
		by:    by,
		end:   `t.id`,
		key:   []any{key},
		rows:  rows,
	}
}

// States of wayUser.
const (
	userRevoked   = ` AND ` + liveUntil + ` = 0`
	userUnrevoked = ` AND ` + liveUntil + ` > 0`
)

func wayRevoked() way {
	return way{
		from:  `tokens t INDEXED BY tokens_revoked`,
		where: `t.revoke_us IS NOT NULL AND t.id >= $LO AND t.id <= $HI`,
		by:    `t.id $DESC`,
		end:   `t.id`,
	}
}

// The way through all tokens by their expiry is in two parts. A stretch of wayTimes ends before an instant, and wayTied
// goes through the tokens of one: many may share it, as those do that never expire.
func wayTimes() way {
	return way{
		from:  `tokens t INDEXED BY tokens_expire`,
		where: `t.expire_us >= $LO AND t.expire_us <= $HI`,
		by:    `t.expire_us $DESC, t.id $DESC`,
		end:   `t.expire_us`,
	}
}

func wayTied(us int64) way {
	return way{
		from:  `tokens t INDEXED BY tokens_expire`,
		where: `t.expire_us = $KEY AND t.id >= $LO AND t.id <= $HI`,
		by:    `t.id $DESC`,
		end:   `t.id`,
		key:   []any{us},
	}
}

// What the two orders go by.
const (
	idColumn     = `t.id`
	expireColumn = `t.expire_us`
)

// pageOf is the statement that reads the tokens of a stretch.
func (w way) pageOf(desc bool) string {
	return w.bind(`SELECT `+usedColumns+` FROM $FROM CROSS JOIN users u ON u.key = t."user" `+joinUse+`
WHERE $WHERE`+inventoryFilter+` ORDER BY $BY LIMIT ?15`, `?16`, `?17`, `?18`, desc)
}

// sortedBy is the statement that sorts the tokens of a way by a column, after a position.
func (w way) sortedBy(column string, desc bool) string {
	at, id, than := `?16`, `?17`, `>`
	if desc {
		than = `<`
	}
	return w.bind(`SELECT `+usedColumns+` FROM $FROM CROSS JOIN users u ON u.key = t."user" `+joinUse+`
WHERE $WHERE AND (+`+column+` `+than+` `+at+` OR +`+column+` = `+at+` AND +t.id `+than+` `+id+`)`+inventoryFilter+`
ORDER BY +`+column+` $DESC, +t.id $DESC LIMIT ?15`, `?18`, `?19`, `?20`, desc)
}

// endOf is the statement that finds where a stretch of so many rows ends; it returns no row if the range ends before.
func (w way) endOf(rows int, desc bool) string {
	return w.bind(`SELECT `+w.end+` FROM $FROM WHERE $WHERE ORDER BY $BY LIMIT 1 OFFSET `+strconv.Itoa(rows),
		`?1`, `?2`, `?3`, desc)
}

func (w way) bind(statement, lo, hi, key string, desc bool) string {
	direction := ``
	if desc {
		direction = `DESC`
	}
	statement = strings.NewReplacer(`$FROM`, w.from, `$WHERE`, w.where, `$BY`, w.by).Replace(statement)
	return strings.NewReplacer(`$LO`, lo, `$HI`, hi, `$KEY`, key, `$DESC`, direction).Replace(statement)
}
