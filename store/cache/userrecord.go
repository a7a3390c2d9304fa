package cache

import (
	"encoding/binary"
	"time"

	"patd/store/cache/internal/reclog"
	"patd/tokens"
)

// A userRecord is a user as bytes without pointers:
//
//	 4  its state, 1 byte
//	24  create and 32 delete time; 40 number of its list of features, 4 bytes; 44 length of its id, 4 bytes
//	48  its id, and the features if the number is 0
type userRecord reclog.Record

const (
	userStateAt  = 4
	userCreate   = 24
	userDelete   = 32
	userList     = 40
	userIDLength = 44
	userText     = 48
)

// packUser makes the record of a user; list is the number of its list of features, 0 if that has none.
func packUser(u *tokens.User, list uint32) reclog.Record {
	b := make([]byte, userText, userText+len(u.ID)+reclog.Align)
	b[userStateAt] = byte(u.State)
	binary.LittleEndian.PutUint64(b[userCreate:], uint64(u.CreateTime.UnixMicro()))
	if !u.DeleteTime.IsZero() {
		binary.LittleEndian.PutUint64(b[userDelete:], uint64(u.DeleteTime.UnixMicro()))
	}
	binary.LittleEndian.PutUint32(b[userList:], list)
	binary.LittleEndian.PutUint32(b[userIDLength:], uint32(len(u.ID)))
	b = append(b, u.ID...)
	if list == 0 {
		b = packTexts(b, u.Features)
	}
	return reclog.Make(b, uint64(u.Key))
}

// id is the user's id, which is part of the record.
func (r userRecord) id() string {
	p := parser{b: r[userText:]}
	return p.string(int(binary.LittleEndian.Uint32(r[userIDLength:])))
}

// read fills u, and returns the number of its list of features. lists are the lists of features by number.
func (r userRecord) read(u *tokens.User, lists [][]string) (list uint32) {
	u.Key, u.ID, u.State = int64(reclog.Record(r).ID()), r.id(), tokens.UserState(r[userStateAt])
	u.CreateTime, u.DeleteTime = instant(int64(binary.LittleEndian.Uint64(r[userCreate:]))), time.Time{}
	if us := binary.LittleEndian.Uint64(r[userDelete:]); us != 0 {
		u.DeleteTime = instant(int64(us))
	}
	if n := binary.LittleEndian.Uint32(r[userList:]); n != 0 {
		u.Features = lists[n-1]
		return n
	}
	p := parser{b: r[userText+len(u.ID):]}
	u.Features = p.texts(nil)
	return 0
}
