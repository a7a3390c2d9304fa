package login

import (
	"context"
	"errors"
)

// Device signs a person in on another device (RFC 8628). show gets the address to open, the code to enter there, and
// the address with the code in it, or "". It waits until the person is done, or the code has expired.
func (p *Provider) Device(ctx context.Context, show func(address, code, complete string)) (Grant, error) {
	if p.config.Endpoint.DeviceAuthURL == "" {
		return Grant{}, errors.New("the provider has no device authorization endpoint; sign in without --device")
	}
	ctx = p.with(ctx)
	asked, err := p.config.DeviceAuth(ctx, p.parameters(false)...)
	if err != nil {
		return Grant{}, refused("ask for a code", err)
	}
	if !safe(asked.VerificationURI) || asked.VerificationURIComplete != "" && !safe(asked.VerificationURIComplete) {
		return Grant{}, errors.New("the provider names an address to enter the code that is not https")
	}
	show(asked.VerificationURI, asked.UserCode, asked.VerificationURIComplete)
	t, err := p.config.DeviceAccessToken(ctx, asked, p.parameters(true)...)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return Grant{}, errors.New("the code was not entered in time; start again")
		}
		return Grant{}, refused("sign in", err)
	}
	return p.grant(ctx, t, "", "")
}
