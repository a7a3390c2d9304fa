package client_test

import (
	"runtime"
	"testing"

	"patd/client"
	"patd/client/clienttest"
)

// heap is what is in use, once the collector has been.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held goes at the second
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestAVerifierDoesNotGrowWithWhatItIsAsked has many more tokens checked than are remembered, again and again.
func TestAVerifierDoesNotGrowWithWhatItIsAsked(t *testing.T) {
	s := clienttest.NewServer(t)
	secrets := make([]string, 1000)
	for i := range secrets {
		secrets[i], _ = s.Mint(clienttest.Token{User: "u", Scopes: []string{"a"}})
	}
	v, err := client.New(s.Conn(t), client.Config{MaxEntries: 128})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	all := func() {
		for _, secret := range secrets {
			if got, err := v.Verify(t.Context(), secret, client.Call{}); err != nil || !got.Allowed() {
				t.Fatalf("%+v, %v", got, err)
			}
		}
	}
	all()
	before := heap()
	const rounds = 4
	for range rounds {
		all()
	}
	// A hundred bytes a question would be a leak.
	if after := heap(); after > before+rounds*1000*100 {
		t.Errorf("the heap grew by %d bytes", after-before)
	}
}

// TestAClosedVerifierLeavesNothingBehind makes many. That no goroutine is left is checked at the end of all tests.
func TestAClosedVerifierLeavesNothingBehind(t *testing.T) {
	s := clienttest.NewServer(t)
	secret, _ := s.Mint(clienttest.Token{User: "u", Scopes: []string{"a"}})
	conn := s.Conn(t)
	round := func() {
		for range 50 {
			v, err := client.New(conn, client.Config{})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := v.Verify(t.Context(), secret, client.Call{}); err != nil || !got.Allowed() {
				t.Fatalf("%+v, %v", got, err)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	round()
	before := heap()
	const rounds = 4
	for range rounds {
		round()
	}
	// A Verifier's tables alone take tens of kilobytes.
	if after := heap(); after > before+rounds*50*4096 {
		t.Errorf("the heap grew by %d bytes for %d verifiers", after-before, rounds*50)
	}
}
