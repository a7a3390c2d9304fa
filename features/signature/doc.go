// Package signature proves to a company's endpoint that a request about a user's features comes from patd.
//
// The request is a POST with a JSON body and one header:
//
//	Patd-Signature: t=1767225600,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd
//
// t is the Unix time of sending, in decimal seconds. v1 is the HMAC-SHA-256, in hexadecimal, under the shared key, of
// the decimal digits of t, a full stop and the body exactly as it came. A receiver
//
//  1. reads the body, bounded, without parsing it;
//  2. computes the HMAC of t, "." and the body, and compares it in constant time with each v1 of the header;
//  3. refuses when none matches, or when t is further from its own clock than a tolerance, which bounds replay.
//
// [Verify] does it in Go. In another language it is a dozen lines. To change the key, a receiver accepts the old and
// the new one for a while (call Verify with each), patd gets the new one, and the receiver drops the old.
//
// The package needs the standard library only, so that a receiver that imports it takes nothing else in.
package signature
