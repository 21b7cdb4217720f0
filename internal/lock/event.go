package lock

// EventType is what happened to a lock, for operators. The scripts of the store write most events,
// and the flows those that only they know of (Store.Note, Store.GiveUp).
type EventType string

// The types of events.
const (
	EventAcquired     EventType = "acquired"
	EventReleased     EventType = "released"
	EventHandedOver   EventType = "handed_over"
	EventTakenOver    EventType = "taken_over"
	EventReasserted   EventType = "reasserted"
	EventExpired      EventType = "expired"
	EventGone         EventType = "gone"
	EventLost         EventType = "lost"
	EventBroken       EventType = "broken"
	EventTimedOut     EventType = "timed_out" // a wait ended by its time limit
	EventCancelled    EventType = "cancelled" // a wait was given up
	EventPushRejected EventType = "push_rejected"
	EventBatchJoined  EventType = "batch_joined"
	EventBatchPushed  EventType = "batch_pushed"
	EventBatchLanded  EventType = "batch_landed"
	EventSkipped      EventType = "skipped"    // a command that does not wait did not get the lock
	EventSuperseded   EventType = "superseded" // a newer command took a waiter's place
	EventFrozen       EventType = "frozen"
	EventThawed       EventType = "thawed"
)

// EventTypes are all types of events.
func EventTypes() []EventType {
	return []EventType{
		EventAcquired, EventReleased, EventHandedOver, EventTakenOver, EventReasserted, EventExpired, EventGone, EventLost,
		EventBroken, EventTimedOut, EventCancelled, EventPushRejected, EventBatchJoined, EventBatchPushed, EventBatchLanded,
		EventSkipped, EventSuperseded, EventFrozen, EventThawed,
	}
}

// EndsHold reports whether an event of this type ends a hold.
func (t EventType) EndsHold() bool {
	switch t {
	case EventReleased, EventExpired, EventGone, EventBroken:
		return true
	default:
		return false
	}
}

// Bad reports whether an event of this type is worth a look.
func (t EventType) Bad() bool {
	switch t {
	case EventExpired, EventBroken, EventGone, EventLost, EventTimedOut, EventPushRejected:
		return true
	default:
		return false
	}
}
