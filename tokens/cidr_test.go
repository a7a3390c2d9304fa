package tokens_test

import (
	"testing"

	"patd/tokens"
)

// A network of IPv4-mapped addresses is one of IPv4. One that is shorter than the 96 bits that all of them share was
// meant as something else: cut to its length, ::ffff:10.0.0.0/8 would be ::/8, which holds this machine and translated
// addresses, and none of the clients that were meant.
func TestNetworksOfMappedAddressesAreThoseOfIPv4OrRefused(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.2.3/8": "10.0.0.0/8", "10.1.2.3": "10.1.2.3/32", "0.0.0.0/0": "0.0.0.0/0",
		"::ffff:10.1.2.3/104": "10.0.0.0/8", "::ffff:a01:203/128": "10.1.2.3/32", "::ffff:10.1.2.3": "10.1.2.3/32", "::ffff:0:0/96": "0.0.0.0/0",
		"2001:db8::1/32": "2001:db8::/32", "2001:db8::1": "2001:db8::1/128", "::/0": "::/0", "::1": "::1/128", "64:ff9b::/96": "64:ff9b::/96",
	} {
		if p, err := tokens.ParseCIDR(text); err != nil || p.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, p, err, want)
		}
	}
	for _, text := range []string{
		"::ffff:10.0.0.0/8", "::ffff:10.0.0.0/95", "::ffff:0:0/0", "", "/8", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/08", "2001:db8::/129",
		"fe80::1%eth0", "fe80::%eth0/10", "example.com", "10.0.0.1,10.0.0.2", " 10.0.0.1", "010.0.0.1",
	} {
		if p, err := tokens.ParseCIDR(text); err == nil {
			t.Errorf("%q is taken for %v", text, p)
		}
	}
}
