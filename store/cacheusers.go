package store

import (
	"strings"
	"sync"
	"sync/atomic"

	"patd/tokens"
)

// userCost is about what a user takes beside its texts, in bytes.
const userCost = 320

// sharedUser is a user as all answers about its tokens share it.
type sharedUser struct {
	tokens.User
	cost  int
	used  atomic.Bool // since the last search for something to give up
	other *sharedUser // of the same id: one of them deleted, the other met again
}

// featureLists are the lists of features that users hold, each once: many users hold the same, by what they pay for, and then the
// memory that a decision looks at is likely at hand. A long list its user has alone.
type featureLists struct {
	known map[string][]string
	size  int
}

// sharedLists bounds the memory of shared lists, in bytes.
const sharedLists = 1 << 20

// shared answers the same list, and what it takes that is this user's own.
func (l *featureLists) shared(list []string) (_ []string, own int) {
	key := strings.Join(list, " ")
	if known, ok := l.known[key]; ok {
		return known, 0
	}
	own = len(key) + 16*len(list)
	if 2*own+64 > sharedLists/16 {
		return list, own
	}
	if l.known == nil || l.size+2*own+64 > sharedLists { // those that are read anew are shared anew
		l.known, l.size = make(map[string][]string), 0
	}
	l.known[key] = list
	l.size += 2*own + 64
	return list, 0
}

// users is the cache's users. A token's record names its user by key, and changes name one by id.
type users struct {
	shards [16]userShard

	mu      sync.Mutex // taken before a shard's
	byID    map[string]*sharedUser
	lists   featureLists
	recent  recently
	cost    int
	room    int
	evicted uint64

	seq atomic.Uint64 // recent.seq, for those who have not the lock
}

type userShard struct {
	mu    sync.RWMutex
	byKey map[int64]*sharedUser
}

func (u *users) init(room int) {
	u.room = room
	u.clear()
}

func (u *users) shard(key int64) *userShard { return &u.shards[uint64(key)%uint64(len(u.shards))] }

// get answers a user; nil: it is not here.
func (u *users) get(key int64) *sharedUser {
	s := u.shard(key)
	s.mu.RLock()
	found := s.byKey[key]
	s.mu.RUnlock()
	if found != nil && !found.used.Load() {
		found.used.Store(true)
	}
	return found
}

// put keeps a user, unless it was changed since its reading began.
func (u *users) put(user tokens.User, since uint64) {
	e := &sharedUser{User: user, cost: userCost + len(user.ID)}
	u.mu.Lock()
	defer u.mu.Unlock()
	var own int
	e.Features, own = u.lists.shared(user.Features)
	if e.cost += own; e.cost > u.room/2 {
		return
	}
	if u.recent.since(hashText(user.ID), since) {
		return
	}
	s := u.shard(user.Key)
	s.mu.RLock()
	known := s.byKey[user.Key] != nil
	s.mu.RUnlock()
	if known {
		return
	}
	for u.cost+e.cost > u.room && len(u.byID) > 0 {
		u.evict()
	}
	e.other = u.byID[user.ID]
	u.byID[user.ID] = e
	u.cost += e.cost
	s.mu.Lock()
	s.byKey[user.Key] = e
	s.mu.Unlock()
}

// evict gives up a user that was not read lately, out of some that chance chooses.
func (u *users) evict() {
	const most = 32
	looked, victim := 0, ""
	for id, e := range u.byID {
		victim = id
		if looked++; looked == most || !e.used.Swap(false) {
			break
		}
	}
	u.remove(victim)
	u.evicted++
}

// remove takes out every user of an id.
func (u *users) remove(id string) {
	for e := u.byID[id]; e != nil; e = e.other {
		u.cost -= e.cost
		s := u.shard(e.Key)
		s.mu.Lock()
		delete(s.byKey, e.Key)
		s.mu.Unlock()
	}
	delete(u.byID, id)
}

// drop forgets a user, and keeps what is being read of it from being kept.
func (u *users) drop(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.recent.note(hashText(id))
	u.seq.Store(u.recent.seq)
	u.remove(id)
}

func (u *users) clear() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.recent.noteAll()
	u.seq.Store(u.recent.seq)
	u.byID, u.cost, u.lists = make(map[string]*sharedUser), 0, featureLists{}
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		s.byKey = make(map[int64]*sharedUser)
		s.mu.Unlock()
	}
}

func (u *users) figures() (n, cost int, evicted uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.byID), u.cost, u.evicted
}
