package store

import (
	"encoding/binary"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"patd/tokens"
)

// A user's record goes on, after what it has in common with a token's:
//
//	24  create and 32 delete time; 40 number of its list of features, 4 bytes; 44 length of its id, 4 bytes
//	48  its id, and the features if the number is 0
const (
	userStateAt  = 4
	userCreate   = 24
	userDelete   = 32
	userList     = 40
	userIDLength = 44
	userText     = 48
)

// users is the cache's users. A token's record names its user by key, and changes name one by id.
type users struct {
	shards [8]userShard

	mu     sync.Mutex // of what follows; taken before a shard's
	recent recently
	lists  featureLists // whose lists are read without

	seq atomic.Uint64 // recent.seq, for those who have not the lock
}

// userShard is a part of the users, by key.
type userShard struct {
	mu   sync.Mutex
	log  recordLog
	byID index // places in the log under the hashes of ids; of users who were deleted and met again there are several
}

func (u *users) init(room int) {
	for i := range u.shards {
		s := &u.shards[i]
		s.log.gone = func(r record, from uint64) { s.byID.remove(idTag(r.userID()), from) }
		s.log.moved = func(r record, from, to uint64) {
			tag := idTag(r.userID())
			s.byID.remove(tag, from)
			s.byID.add(tag, to)
		}
		s.log.init(room / len(u.shards))
	}
	u.clear()
}

func idTag(id string) uint64 { return hashText(id) >> placeBits }

func (u *users) shard(key int64) *userShard { return &u.shards[uint64(key)%uint64(len(u.shards))] }

// get reads a user; false: it is not here.
func (u *users) get(key int64, to *tokens.User) bool {
	s := u.shard(key)
	r := s.log.look(&s.mu, uint64(key))
	if r == nil {
		return false
	}
	r.readUser(to, u.lists.all())
	return true
}

// put keeps a user, unless it was changed since its reading began. False: it is not here.
func (u *users) put(user tokens.User, since uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.recent.since(hashText(user.ID), since) {
		return false
	}
	s := u.shard(user.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot, _ := s.log.search(uint64(user.Key)); slot >= 0 {
		return true
	}
	at, ok := s.log.put(packedUser(&user, u.lists.number(user.Features)))
	if ok {
		s.byID.add(idTag(user.ID), at)
	}
	return ok
}

// drop forgets a user, and keeps what is being read of it from being kept.
func (u *users) drop(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.recent.note(hashText(id))
	u.seq.Store(u.recent.seq)
	for i := range u.shards {
		u.shards[i].drop(id)
	}
}

// drop forgets every user of an id.
func (s *userShard) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []uint64
	s.byID.each(idTag(id), func(at uint64) {
		if r := s.log.at(at); r.userID() == id {
			keys = append(keys, r.id())
		}
	})
	for _, key := range keys {
		s.log.remove(key)
	}
}

func (u *users) clear() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.recent.noteAll()
	u.seq.Store(u.recent.seq)
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		s.log.clear()
		s.byID = newIndex()
		s.mu.Unlock()
	}
}

func (u *users) figures() (n, bytes int, evicted uint64) {
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		n += s.log.index.live
		bytes += s.log.bytes()
		evicted += s.log.evicted
		s.mu.Unlock()
	}
	return n, bytes, evicted
}

// packedUser is the record of a user; list is the number of its features, 0 if they have none.
func packedUser(u *tokens.User, list uint32) record {
	b := make([]byte, userText, userText+len(u.ID)+recordAlign)
	b[userStateAt] = byte(u.State)
	binary.LittleEndian.PutUint64(b[recordID:], uint64(u.Key))
	binary.LittleEndian.PutUint64(b[userCreate:], uint64(micros(u.CreateTime)))
	if !u.DeleteTime.IsZero() {
		binary.LittleEndian.PutUint64(b[userDelete:], uint64(micros(u.DeleteTime)))
	}
	binary.LittleEndian.PutUint32(b[userList:], list)
	binary.LittleEndian.PutUint32(b[userIDLength:], uint32(len(u.ID)))
	b = append(b, u.ID...)
	if list == 0 {
		b = packTexts(b, u.Features)
	}
	return sized(b, 0)
}

// userID is the user's id, which is part of the record.
func (r record) userID() string {
	p := parser{b: r[userText:]}
	return p.string(int(binary.LittleEndian.Uint32(r[userIDLength:])))
}

// readUser fills u. lists are the lists of features by number.
func (r record) readUser(u *tokens.User, lists [][]string) {
	u.Key, u.ID, u.State = int64(r.id()), r.userID(), tokens.UserState(r[userStateAt])
	u.CreateTime, u.DeleteTime = instant(int64(binary.LittleEndian.Uint64(r[userCreate:]))), time.Time{}
	if us := binary.LittleEndian.Uint64(r[userDelete:]); us != 0 {
		u.DeleteTime = instant(int64(us))
	}
	if n := binary.LittleEndian.Uint32(r[userList:]); n != 0 {
		u.Features = lists[n-1]
		return
	}
	p := parser{b: r[userText+len(u.ID):]}
	u.Features = p.texts(nil)
}

// featureLists are lists of features that several users hold, each once: many users hold the same, by what they pay for, and
// then the memory that a decision looks at is likely at hand. A list is shared from the second user on. Numbers stay good:
// when there is no room for more lists, those that are new are their users' own.
type featureLists struct {
	lists   atomic.Pointer[[][]string] // by number, which begins at 1
	numbers map[string]uint32
	once    map[uint64]struct{} // hashes of some that were met once
	size    int
}

const (
	sharedLists = 1 << 20 // bytes of all that are shared
	metOnce     = 1 << 12
)

func (l *featureLists) all() [][]string {
	if all := l.lists.Load(); all != nil {
		return *all
	}
	return nil
}

// number answers the number of a list; 0: it has none. One at a time may ask.
func (l *featureLists) number(list []string) uint32 {
	key := strings.Join(list, " ")
	if n, ok := l.numbers[key]; ok {
		return n
	}
	cost := 2*len(key) + 16*len(list) + 64
	if cost > sharedLists/16 || l.size+cost > sharedLists {
		return 0
	}
	if hash := hashText(key); !l.met(hash) {
		return 0
	}
	all := append(l.all(), list) // whoever reads the lists there were does not look behind their end
	l.lists.Store(&all)
	if l.numbers == nil {
		l.numbers = make(map[string]uint32)
	}
	n := uint32(len(all))
	l.numbers[key], l.size = n, l.size+cost
	return n
}

// met tells whether a hash was met before, as far as is remembered.
func (l *featureLists) met(hash uint64) bool {
	if _, ok := l.once[hash]; ok {
		return true
	}
	if l.once == nil || len(l.once) >= metOnce {
		l.once = make(map[uint64]struct{})
	}
	l.once[hash] = struct{}{}
	return false
}
