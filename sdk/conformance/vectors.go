package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// vectors are what a library must compute without a server.
type vectors struct {
	// Forms are texts, and whether each has the form of a token that may be introspected.
	Forms []formVector `json:"forms"`
	// Checksums are beginnings of secrets, and the checksum that follows each.
	Checksums []checksumVector `json:"checksums"`
	// Keys are what the keys of memory are made of, before they are digested.
	Keys []keyVector `json:"keys"`
	// Reasons are the reasons of the decisions.
	Reasons map[string]string `json:"reasons"`
}

type formVector struct {
	Why       string `json:"why"`
	Text      string `json:"text"`
	Plausible bool   `json:"plausible"`
}

type checksumVector struct {
	Text     string `json:"text"`
	Checksum string `json:"checksum"`
}

type keyVector struct {
	Token      string `json:"token"`
	Audience   string `json:"audience"`
	IP         string `json:"ip"`
	Everywhere string `json:"everywhere"` // in hexadecimal
	Address    string `json:"address"`    // likewise; empty: there is none
}

func readVectors() (v vectors, err error) {
	text, err := files.ReadFile("vectors.json")
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(text, &v)
}

// playVectors compares what a driver computes with the vectors. It returns how many were compared.
func playVectors(d *driver) (n int, err error) {
	v, err := readVectors()
	if err != nil {
		return 0, err
	}
	var wrong []error
	for _, f := range v.Forms {
		r, err := d.do(order{"do": "form", "token": f.Text})
		switch {
		case err != nil:
			return n, err
		case r.Plausible == nil:
			return n, fmt.Errorf("form: %s", r.raw)
		case *r.Plausible != f.Plausible:
			wrong = append(wrong, fmt.Errorf("form: %s: plausible is %v, want %v", f.Why, *r.Plausible, f.Plausible))
		}
		n++
	}
	for _, k := range v.Keys {
		if !slices.Contains(d.hello.Can, "key") {
			break
		}
		r, err := d.do(order{"do": "key", "token": k.Token, "audience": k.Audience, "ip": k.IP})
		switch {
		case err != nil:
			return n, err
		case r.Everywhere != k.Everywhere || r.Address != k.Address:
			wrong = append(wrong, fmt.Errorf("key of audience %q and address %q: %s", k.Audience, k.IP, r.raw))
		}
		n++
	}
	return n, errors.Join(wrong...)
}

// checksum returns the CRC-32 of a text in 6 base62 digits.
func checksum(text string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := crc32.ChecksumIEEE([]byte(text))
	out := make([]byte, 6)
	for i := len(out) - 1; i >= 0; i-- {
		out[i], sum = digits[sum%62], sum/62
	}
	return string(out)
}
