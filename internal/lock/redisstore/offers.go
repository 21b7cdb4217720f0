package redisstore

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/git-gitops/git-gitops/internal/lock"
)

var _ lock.Offers = (*Store)(nil)

// offers runs the script that keeps offers. Beside the lock's own keys it touches those of the
// tokens.
func (s *Store) offers(ctx context.Context, k lock.Key, t lock.Token, tokens []lock.Token, do string, more ...any) (any, error) {
	keys := []string{s.layout.offers(k)}
	for _, token := range tokens {
		keys = append(keys, s.layout.wake(k, token))
	}
	return s.runWith(ctx, offerScript, k, t, 0, keys, append([]any{do}, more...)...)
}

// Offer implements lock.Offers.
func (s *Store) Offer(ctx context.Context, r lock.Request, o lock.Offer) (lock.OfferStatus, error) {
	text := ""
	if o.Ref != "" {
		b, err := json.Marshal(o)
		if err != nil {
			return lock.OffersPaused, fmt.Errorf("encode the offer: %w", err)
		}
		text = string(b)
	}
	reply, err := s.offers(ctx, r.Key, r.Token, nil, "offer", text, encode(r.Record))
	n, _ := reply.(int64)
	return lock.OfferStatus(n), err
}

// Withdraw implements lock.Offers.
func (s *Store) Withdraw(ctx context.Context, k lock.Key, t lock.Token) (lock.Landing, error) {
	reply, err := s.offers(ctx, k, t, nil, "withdraw")
	if err != nil {
		return lock.Landing{}, err
	}
	p := parser{reply: reply}
	return lock.Landing{Together: int(p.int()), By: p.text()}, nil
}

// ClaimOffers implements lock.Offers.
func (s *Store) ClaimOffers(ctx context.Context, k lock.Key, t lock.Token, most int) ([]lock.Offer, error) {
	reply, err := s.offers(ctx, k, t, nil, "claim", most)
	if err != nil {
		return nil, err
	}
	var all []lock.Offer
	for p := (parser{reply: reply}); !p.done(); {
		o := lock.Offer{}
		token, text := p.text(), p.text()
		if json.Unmarshal([]byte(text), &o) == nil { // anybody may have written it
			o.Token = lock.Token(token)
			all = append(all, o)
		}
	}
	return all, nil
}

// Landed implements lock.Offers.
func (s *Store) Landed(ctx context.Context, r lock.Request, leader string, landed []lock.Token) error {
	more := []any{encode(r.Record), leader}
	for _, t := range landed {
		more = append(more, string(t))
	}
	_, err := s.offers(ctx, r.Key, r.Token, landed, "landed", more...)
	return err
}

// PauseOffers implements lock.Offers.
func (s *Store) PauseOffers(ctx context.Context, k lock.Key, t lock.Token, d time.Duration) error {
	_, err := s.offers(ctx, k, t, nil, "pause", d.Milliseconds())
	return err
}
