package cache

import (
	"sync"
	"sync/atomic"

	"patd/store/cache/internal/reclog"
	"patd/tokens"
)

// users are the users in memory. A token's record names its user by key, and changes name one by id.
type users struct {
	shards [8]userShard

	mu     sync.Mutex // guards what follows; taken before a shard's
	recent recently

	lists textLists // of features

	seq atomic.Uint64 // recent.seq, to be read without the lock
}

// userShard is a part of the users, by key.
type userShard struct {
	mu  sync.Mutex
	log reclog.Log
	// byID has places in the log under the hashes of ids. Users who were deleted and came again have several.
	byID reclog.Index
}

func (u *users) init(room int) {
	for i := range u.shards {
		s := &u.shards[i]
		s.log.Init(reclog.Config{
			Room: room / len(u.shards),
			Gone: func(r reclog.Record, from uint64) { s.byID.Remove(idTag(userRecord(r).id()), from) },
			Moved: func(r reclog.Record, from, to uint64) {
				tag := idTag(userRecord(r).id())
				s.byID.Remove(tag, from)
				s.byID.Add(tag, to)
			},
		})
	}
	u.clear()
}

func idTag(id string) uint64 { return reclog.Tag(hashText(id)) }

func (u *users) shard(key int64) *userShard { return &u.shards[uint64(key)%uint64(len(u.shards))] }

// get reads a user, and the number of its list of features, 0 if that has none; false: it is not here.
func (u *users) get(key int64, to *tokens.User) (list uint32, ok bool) {
	s := u.shard(key)
	r := userRecord(s.log.Look(&s.mu, uint64(key)))
	if r == nil {
		return 0, false
	}
	return r.read(to, u.lists.all()), true
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
	if s.log.Find(uint64(user.Key)) != nil {
		return true
	}
	at, ok := s.log.Put(packUser(&user, u.lists.number(user.Features)))
	if ok {
		s.byID.Add(idTag(user.ID), at)
	}
	return ok
}

// drop drops a user, and keeps readings of it under way from being kept.
func (u *users) drop(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.recent.note(hashText(id))
	u.seq.Store(u.recent.seq)
	for i := range u.shards {
		u.shards[i].drop(id)
	}
}

// drop drops every user of an id.
func (s *userShard) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []uint64
	s.byID.Each(idTag(id), func(at uint64) {
		if r := s.log.At(at); userRecord(r).id() == id {
			keys = append(keys, r.ID())
		}
	})
	for _, key := range keys {
		s.log.Remove(key)
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
		s.log.Clear()
		s.byID = reclog.NewIndex()
		s.mu.Unlock()
	}
}

func (u *users) stats() (n, bytes int, evicted uint64) {
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		log := s.log.Stats()
		s.mu.Unlock()
		n += log.Records
		bytes += log.Bytes
		evicted += log.Evicted
	}
	return n, bytes, evicted
}
