package dialguard_test

import (
	"net/netip"
	"testing"

	"patd/internal/dialguard"
)

func TestURLsAreHTTPSOrOnThisMachine(t *testing.T) {
	t.Parallel()
	office := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	for text, ok := range map[string]bool{
		"https://hooks.example.com/in": true, "https://hooks.example.com:8443/in?a=b": true, "https://192.0.32.10/": true,
		"http://127.0.0.1:8080/": true, "http://localhost/": true, "http://[::1]:80/": true, "https://127.0.0.1/": true,
		"https://10.1.2.3/": true, "https://10.2.2.3/": false, "https://169.254.169.254/latest": false,
		"https://[::ffff:10.2.2.3]/": false, "https://[fd00::1]/": false, "https://0.0.0.0/": false,
		"http://hooks.example.com/": false, "http://10.1.2.3/": false, "ftp://hooks.example.com/": false, "": false,
		"https://": false, "/in": false, "https://u:p@hooks.example.com/": false, "https://hooks.example.com/#x": false,
	} {
		if _, err := dialguard.Check(text, office); (err == nil) != ok {
			t.Errorf("Check(%q) returns %v", text, err)
		}
	}
}

func TestAddressIsCheckedWhenTheConnectionIsMade(t *testing.T) {
	t.Parallel()
	public, err := dialguard.Check(
		"https://hooks.example.com/",
		[]netip.Prefix{netip.MustParsePrefix("::ffff:10.1.0.0/112")},
	)
	if err != nil {
		t.Fatal(err)
	}
	local, err := dialguard.Check("http://localhost/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		of      dialguard.Guard
		address string
		ok      bool
	}{
		{public, "192.0.32.10:443", true},
		{public, "10.1.2.3:443", true}, // allowed
		{public, "127.0.0.1:443", false},
		{public, "[::1]:443", false},
		{public, "[::ffff:10.9.9.9]:443", false},
		{public, "[64:ff9b::7f00:1]:443", false},
		{public, "169.254.169.254:80", false},
		{public, "no address", false},
		{local, "127.0.0.1:80", true},
		{local, "192.0.32.10:80", false}, // in plain text
	} {
		if err := c.of.Control(t.Context(), "tcp", c.address, nil); (err == nil) != c.ok {
			t.Errorf("dialling %s returns %v", c.address, err)
		}
	}
}
