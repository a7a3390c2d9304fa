package tokensource

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	patdv1 "patd/gen/patd/v1"
	"patd/internal/loopback"
	"patd/tokens/refusal"
	"patd/tokens/secret"
)

// maxAnswer is the size of the largest response that is read.
const maxAnswer = 1 << 20

// REST returns the API of a server at a base URL, such as https://patd.example.com. The URL must be https, or lead to
// this machine. c may be nil. Redirects are not followed: the secret goes to the server only.
func REST(server string, c *http.Client) (API, error) {
	return newREST(server, c, false)
}

// PlaintextREST is [REST] without the demand of https, for networks that are encrypted by other means.
func PlaintextREST(server string, c *http.Client) (API, error) {
	return newREST(server, c, true)
}

func newREST(server string, c *http.Client, plaintext bool) (API, error) {
	at, err := url.Parse(server)
	switch {
	case err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https":
		return nil, errors.New("the server must be a URL such as https://patd.example.com")
	case at.User != nil || at.RawQuery != "" || at.Fragment != "":
		return nil, errors.New("the URL of the server must have no user, query or fragment")
	case at.Scheme == "http" && !plaintext && !loopback.Host(at.Hostname()):
		return nil, errors.New("the secret is not sent in plain text: the URL of the server must begin with https")
	}
	if c == nil {
		c = &http.Client{}
	}
	own := *c
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &overREST{base: strings.TrimSuffix(server, "/"), client: &own}, nil
}

type overREST struct {
	base   string
	client *http.Client
}

// Self calls GET /v1/self.
func (r *overREST) Self(ctx context.Context, s secret.Secret) (Self, error) {
	var out patdv1.GetSelfResponse
	header, err := r.call(ctx, http.MethodGet, "/v1/self", s, nil, &out)
	if err != nil {
		return Self{}, err
	}
	return selfOf(&out, header.Values(refusal.HeaderExpiresAt)), nil
}

// Rotate calls POST /v1/self:rotate.
func (r *overREST) Rotate(
	ctx context.Context,
	s secret.Secret,
	q *patdv1.RotateSelfRequest,
) (*patdv1.RotateSelfResponse, error) {
	body, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	out := &patdv1.RotateSelfResponse{}
	_, err = r.call(ctx, http.MethodPost, "/v1/self:rotate", s, body, out)
	return out, err
}

func (r *overREST) call(
	ctx context.Context,
	method, path string,
	s secret.Secret,
	body []byte,
	out proto.Message,
) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Reveal())
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return nil, unreachable(ctx, err)
	case resp.StatusCode != http.StatusOK:
		return nil, statusOf(resp.StatusCode, text)
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, out); err != nil {
		return nil, status.Error(codes.Unavailable, "what answered is no patd, or not one that this version knows")
	}
	return resp.Header, nil
}

// unreachable returns the error of a request that got no response.
func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	return status.Error(codes.Unavailable, err.Error())
}

// statusOf returns the error that a response stands for. Only one in patd's own form says anything about the token:
// that of a proxy is an outage.
func statusOf(code int, text []byte) error {
	var body struct {
		Error struct {
			Status  string
			Message string
			Details []struct {
				Reason, Domain string
				Metadata       map[string]string
			}
		}
	}
	var class codes.Code
	if json.Unmarshal(text, &body) == nil && class.UnmarshalJSON([]byte(strconv.Quote(body.Error.Status))) == nil &&
		class != codes.OK {
		s := status.New(class, body.Error.Message)
		for _, d := range body.Error.Details {
			if d.Reason == "" || d.Domain != "patd" {
				continue
			}
			if with, err := s.WithDetails(
				&errdetails.ErrorInfo{Reason: d.Reason, Domain: d.Domain, Metadata: d.Metadata},
			); err == nil {
				return with.Err()
			}
		}
	}
	if code >= 300 && code < 400 {
		return status.Error(
			codes.Unavailable,
			fmt.Sprintf("HTTP status %d: give the address that patd itself has, redirects are not followed", code),
		)
	}
	return status.Error(codes.Unavailable, fmt.Sprintf("HTTP status %d, and no answer of patd's", code))
}
