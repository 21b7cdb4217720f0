package lock

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

// Offer is what a follower that waits for its turn to push leaves for whoever has the turn before
// it (docs/design.md, "Pushing together").
type Offer struct {
	Token     Token  `json:"-"`         // the waiter's, known to the store
	Ref       string `json:"ref"`       // batch ref at the remote
	Marker    string `json:"marker"`    // object id that the batch ref has; the commits are its parent's
	Base      string `json:"base"`      // object id that the commits build on
	Who       string `json:"who"`       // for people
	Signature string `json:"signature"` // see Sign
}

// Sign signs an offer for one branch.
func (o *Offer) Sign(k Key, secret string) { o.Signature = o.sign(k, secret) }

// Signed reports whether somebody who knows the secret has offered this for this branch.
func (o *Offer) Signed(k Key, secret string) bool {
	return secret != "" && hmac.Equal([]byte(o.Signature), []byte(o.sign(k, secret)))
}

func (o *Offer) sign(k Key, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(strings.Join([]string{"gitops batch 1", k.Repo, k.Branch, o.Ref, o.Marker, o.Base}, "\x00")))
	return hex.EncodeToString(mac.Sum(nil))
}

// Landing is who has pushed an offer, for people; the zero value when nobody did, or it is
// forgotten.
type Landing struct {
	By       string
	Together int // pushes that went out in one
}

// OfferStatus is what became of an offer.
type OfferStatus int

const (
	// OffersPaused says that none are taken at present.
	OffersPaused OfferStatus = iota
	// Offered says that it is there for the next leader.
	Offered
	// OfferLanded says that a leader has pushed it. The remote has the last word.
	OfferLanded
)

// Offers is the part of a store that keeps offers. What it says is a hint: the remote decides.
type Offers interface {
	// Offer writes an offer of the waiter, or writes it again; the zero Offer only asks.
	Offer(ctx context.Context, r Request, o Offer) (OfferStatus, error)
	// Withdraw forgets the offer of a token, and says what is known of its landing.
	Withdraw(ctx context.Context, k Key, t Token) (Landing, error)
	// ClaimOffers are the offers of those in line, in their order, for the holder of the lock.
	ClaimOffers(ctx context.Context, k Key, t Token, most int) ([]Offer, error)
	// Landed takes those whose commits were pushed, in one push with those of its leader, out of
	// the line and wakes them. leader is for people, "" when it is not known.
	Landed(ctx context.Context, r Request, leader string, landed []Token) error
	// PauseOffers has nobody offer for a time.
	PauseOffers(ctx context.Context, k Key, t Token, d time.Duration) error
}
