package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/longtest"
	"patd/internal/waittest"
)

// smallDisk mounts a file system of its own for the duration of a test.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0700"); err != nil {
		t.Skipf("a file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// eat writes a file until the disk is full.
func eat(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<16); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestRevokingGoesOnWhenTheDiskIsFull fills a disk to the last byte. Minting stops, and hundreds of revocations
// succeed, also after a kill and a start on the full disk; once there is room, everything works again.
func TestRevokingGoesOnWhenTheDiskIsFull(t *testing.T) {
	longtest.Slow(t)
	t.Parallel()
	disk := smallDisk(t, "22m")
	data, filler := filepath.Join(disk, "data"), filepath.Join(disk, "filler")
	admin := patd(t, "service", "create", "disk", "--permission", "admin", "--data-dir", data)
	args := []string{"--disk-reserve", "4MiB"}
	d := serve(t, data, args...)
	a := connect(t, d, admin)
	const users = 64 // to mint is to look at all that its user has
	owner := func(i int) string { return fmt.Sprintf("u%02d", i%users) }
	for i := range users {
		if _, err := a.users.SetUserFeatures(
			t.Context(),
			&patdv1.SetUserFeaturesRequest{User: owner(i), Features: []string{"a", "b"}},
		); err != nil {
			t.Fatal(err)
		}
	}
	var (
		minting sync.WaitGroup
		mu      sync.Mutex
		minted  []*patdv1.CreateTokenResponse
		stopped atomic.Bool
	)
	for worker := range 4 {
		minting.Go(func() {
			for i := 0; !stopped.Load(); i++ {
				r, err := a.tokens.CreateToken(t.Context(), &patdv1.CreateTokenRequest{
					User: owner(
						i,
					),
					Name:        fmt.Sprintf("%d-%d", worker, i),
					Scopes:      []string{"a"},
					Description: strings.Repeat("x", 1000),
				})
				if err != nil {
					if stopped.Store(true); reason(err) != "DISK_FULL" {
						t.Errorf("minting on a small disk ended with %v", err)
					}
					return
				}
				mu.Lock()
				minted = append(minted, r)
				mu.Unlock()
			}
		})
	}
	minting.Wait()
	eat(t, filler)
	mint := func() error {
		_, err := a.tokens.CreateToken(
			t.Context(),
			&patdv1.CreateTokenRequest{
				User:   owner(0),
				Name:   fmt.Sprint("late", time.Now().UnixNano()),
				Scopes: []string{"a"},
			},
		)
		return err
	}
	for range 3 {
		if err := mint(); reason(err) != "DISK_FULL" ||
			!strings.Contains(err.Error(), "revoking, suspending and deleting still work") {
			t.Errorf("minting with a full disk: %v", err)
		}
	}
	if code, body := fetched(t, d.HTTP+"/readyz"); code != 200 || !strings.Contains(body, `"disk":"full"`) {
		t.Errorf("/readyz says %d %s, want that the disk is full", code, body)
	}
	const each = 250
	if len(minted) < 2*each+10 {
		t.Fatalf("only %d tokens were minted before the disk was full", len(minted))
	}
	revoke := func(list []*patdv1.CreateTokenResponse) {
		t.Helper()
		for i, one := range list {
			if _, err := a.tokens.RevokeToken(
				t.Context(),
				&patdv1.RevokeTokenRequest{User: one.GetToken().GetUser(), TokenId: one.GetToken().GetTokenId()},
			); err != nil {
				t.Fatalf("revocation %d with a full disk: %v", i, err)
			}
		}
	}
	revoke(minted[:each])
	if _, err := a.users.SetUserFeatures(
		t.Context(),
		&patdv1.SetUserFeaturesRequest{User: owner(0), Features: []string{"a"}},
	); err != nil {
		t.Errorf("narrowing a user with a full disk: %v", err)
	}
	if _, err := a.users.SetUserFeatures(
		t.Context(),
		&patdv1.SetUserFeaturesRequest{User: owner(0), Features: []string{"a", "c"}},
	); reason(
		err,
	) != "DISK_FULL" {
		t.Errorf("giving a user features with a full disk: %v", err)
	}
	if code, body := fetched(t, d.HTTP+"/readyz"); code != 200 || !strings.Contains(body, "its reserve is in use") {
		t.Errorf("/readyz says %d %s, want that the reserve is in use", code, body)
	}
	if _, body := fetched(
		t,
		d.HTTP+"/metrics",
	); !strings.Contains(body, "\npatd_disk_full 1\n") ||
		!strings.Contains(body, "\npatd_disk_reserve_bytes 0\n") {
		t.Error("the metrics do not say that the disk is full and its reserve in use")
	}

	d.Kill()
	d = serve(t, data, args...)
	a = connect(t, d, admin)
	eat(t, filler+"2") // what the start made room for
	if err := mint(); reason(err) != "DISK_FULL" {
		t.Errorf("minting after a start on a full disk: %v", err)
	}
	revoke(minted[each : 2*each])
	if _, err := a.users.SuspendUser(t.Context(), &patdv1.SuspendUserRequest{User: "v"}); err != nil {
		t.Errorf("suspending with a full disk: %v", err)
	}
	for i, want := range map[int]patdv1.IntrospectResponse_Decision{
		0: patdv1.IntrospectResponse_REVOKED, 2*each - 1: patdv1.IntrospectResponse_REVOKED, 2 * each: patdv1.IntrospectResponse_ALLOW,
	} {
		got, err := a.introspect.Introspect(t.Context(), &patdv1.IntrospectRequest{Token: minted[i].GetSecret()})
		if err != nil || got.GetDecision() != want {
			t.Errorf("token %d is %s, %v; want %s", i, got.GetDecision(), err, want)
		}
	}
	if got := patd(t, "check", "--data-dir", data); !strings.HasPrefix(got, "ok: ") {
		t.Errorf("check on a full disk: %s", got)
	}

	if err := errors.Join(os.Remove(filler), os.Remove(filler+"2")); err != nil {
		t.Fatal(err)
	}
	waittest.Until(t, "a token is minted once there is room", func() bool { return mint() == nil })
	if info, err := os.Stat(filepath.Join(data, "patd.db-reserve")); err != nil || info.Size() != 4<<20 {
		t.Errorf("the reserve once there is room: %v, %v", info, err)
	}
	if code, body := fetched(t, d.HTTP+"/readyz"); code != 200 || strings.Contains(body, "disk") {
		t.Errorf("/readyz says %d %s once there is room", code, body)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if got := patd(t, "check", "--data-dir", data); !strings.HasPrefix(got, "ok: ") {
		t.Errorf("check: %s", got)
	}
}

// fetched is the status and the text of what is read without a credential.
func fetched(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
