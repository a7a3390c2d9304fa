package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/wire"
	"patd/tokens"
)

// catalogService serves patd.v1.CatalogService; audiences.go has its methods for audiences.
type catalogService struct {
	patdv1.UnimplementedCatalogServiceServer
	service *tokens.Service
}

var _ patdv1.CatalogServiceServer = catalogService{}

// CreateFeature adds an entry.
func (s catalogService) CreateFeature(
	ctx context.Context,
	r *patdv1.CreateFeatureRequest,
) (*patdv1.CreateFeatureResponse, error) {
	e, err := fromFeature(r.GetFeature(), r.GetFeature().GetName())
	if err != nil {
		return nil, err
	}
	if e, err = s.service.CreateFeature(ctx, call.ActorOf(ctx), e); err != nil {
		return nil, err
	}
	return &patdv1.CreateFeatureResponse{Feature: toFeature(e)}, nil
}

// GetFeature returns an entry.
func (s catalogService) GetFeature(
	ctx context.Context,
	r *patdv1.GetFeatureRequest,
) (*patdv1.GetFeatureResponse, error) {
	e, err := s.service.Feature(ctx, call.ActorOf(ctx), r.GetName())
	if err != nil {
		return nil, err
	}
	return &patdv1.GetFeatureResponse{Feature: toFeature(e)}, nil
}

// ReplaceFeature overwrites an entry.
func (s catalogService) ReplaceFeature(
	ctx context.Context,
	r *patdv1.ReplaceFeatureRequest,
) (*patdv1.ReplaceFeatureResponse, error) {
	e, err := fromFeature(r.GetFeature(), r.GetName())
	if err != nil {
		return nil, err
	}
	if e, err = s.service.ReplaceFeature(ctx, call.ActorOf(ctx), e); err != nil {
		return nil, err
	}
	return &patdv1.ReplaceFeatureResponse{Feature: toFeature(e)}, nil
}

// DeleteFeature removes an entry.
func (s catalogService) DeleteFeature(
	ctx context.Context,
	r *patdv1.DeleteFeatureRequest,
) (*patdv1.DeleteFeatureResponse, error) {
	if err := s.service.DeleteFeature(ctx, call.ActorOf(ctx), r.GetName()); err != nil {
		return nil, err
	}
	return &patdv1.DeleteFeatureResponse{}, nil
}

// ListFeatures lists entries.
func (s catalogService) ListFeatures(
	ctx context.Context,
	r *patdv1.ListFeaturesRequest,
) (*patdv1.ListFeaturesResponse, error) {
	found, next, err := s.service.Features(
		ctx,
		call.ActorOf(ctx),
		tokens.FeatureFilter{Q: r.GetQ(), Filter: r.GetFilter()},
		fromCursor(r),
	)
	if err != nil {
		return nil, asCursor(err)
	}
	return &patdv1.ListFeaturesResponse{Features: toFeatures(found), After: next}, nil
}

// fromFeature reads an entry to be stored under a name. It may omit its own name.
func fromFeature(f *patdv1.Feature, name string) (tokens.FeatureEntry, error) {
	switch {
	case f == nil:
		return tokens.FeatureEntry{}, tokens.Invalid(
			"ENTRY_REQUIRED",
			"feature",
			"give the entry; over REST it is the body",
		)
	case f.GetName() != "" && f.GetName() != name:
		return tokens.FeatureEntry{}, tokens.Invalid(
			"NAME_MISMATCH",
			"name",
			"differs from the name of the entry that is to be replaced; leave it out, or delete and create",
		)
	}
	consent, err := fromEnum("CONSENT_UNKNOWN", "consent", f.GetConsent(), patdv1.Feature_Consent_name)
	if err != nil {
		return tokens.FeatureEntry{}, err
	}
	if _, err := fromEnum(
		"METADATA_PUBLISH_UNKNOWN",
		"metadata_publish",
		f.GetMetadataPublish(),
		patdv1.Feature_MetadataPublish_name,
	); err != nil {
		return tokens.FeatureEntry{}, err
	}
	return tokens.FeatureEntry{
		Name: name, DisplayName: f.GetDisplayName(), Description: f.GetDescription(), Consent: tokens.Consent(consent),
		Default: f.GetDefault(), Optional: f.GetOptional(), System: f.GetSystem(),
		Published: f.GetMetadataPublish() == patdv1.Feature_ALL_CLIENTS,
	}, nil
}

func toFeature(e tokens.FeatureEntry) *patdv1.Feature {
	out := &patdv1.Feature{
		Name:            e.Name,
		DisplayName:     e.DisplayName,
		Description:     e.Description,
		Consent:         patdv1.Feature_Consent(e.Consent),
		Default:         e.Default,
		Optional:        e.Optional,
		System:          e.System,
		MetadataPublish: patdv1.Feature_NO_CLIENTS,
		Etag:            e.ETag(),
	}
	if e.Published {
		out.MetadataPublish = patdv1.Feature_ALL_CLIENTS
	}
	return out
}

func toFeatures(entries []tokens.FeatureEntry) []*patdv1.Feature {
	out := make([]*patdv1.Feature, len(entries))
	for i, e := range entries {
		out[i] = toFeature(e)
	}
	return out
}

// fromTTL reads an optional lifetime of a policy; 0: not given. A given lifetime of 0 or less is rejected: it would be
// taken for the default.
func fromTTL(field string, d *durationpb.Duration) (time.Duration, error) {
	ttl, err := wire.FromDuration(field, d)
	if err != nil || ttl == nil {
		return 0, err
	}
	if *ttl <= 0 {
		return 0, tokens.Invalid("TTL_OUT_OF_RANGE", field, "must be longer than 0s; leave it out for the default")
	}
	return *ttl, nil
}

// toTTL returns nil for a lifetime that is the default.
func toTTL(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
