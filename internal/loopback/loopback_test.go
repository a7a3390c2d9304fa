package loopback_test

import (
	"testing"

	"patd/internal/loopback"
)

func TestOnlyThisMachineIsLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "0.0.0.0": false, "::": false, "10.0.0.1": false, "128.0.0.1": false, "::ffff:10.0.0.1": false, "::2": false,
		"localhost.example.com": false, "127.0.0.1.example.com": false, "localhost:80": false, "127.0.0.1:80": false, "[::1]": false,
		"127.1": false, "2130706433": false, " localhost": false,
	} {
		if got := loopback.Host(host); got != want {
			t.Errorf("Host(%q) is %t", host, got)
		}
		if got := loopback.HostOrSocket(host); got != want {
			t.Errorf("HostOrSocket(%q) is %t", host, got)
		}
	}
	const socket = "/run/postgresql"
	if loopback.Host(socket) || !loopback.HostOrSocket(socket) {
		t.Error("the path of a socket is this machine for a database, and no host")
	}
}
