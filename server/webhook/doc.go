// Package webhook sends to webhooks what happened.
//
// # Messages
//
// The audit log is the outbox. [Describe] makes a message of an event: its body, what filters look at, and the subject
// that orders it. Bodies are made of structs that hold ids, names and labels; [Schemas] are made of the same structs. A
// body is kept with its delivery, so that it is the same at each attempt, whatever becomes of the records.
//
// # One server at a time
//
// [Engine.Run] leases webhooks from the store, renews that every 2 s, and works for each that it has, in a goroutine of
// its own: nothing that one endpoint does delays another. A server that cannot renew a lease ends what it is doing
// before the lease does. What it writes for a webhook is bound to the lease, so that one that was overtaken writes
// nothing.
//
// # A worker
//
// It reads the log from the webhook's cursor on, queues deliveries and moves the cursor in one transaction; when very
// many wait, it reads no further. It attempts those that are due, several at once, but one of each subject, and records
// the results together. What is killed in between is sent again: at least once. An endpoint that refuses a message sees
// it again after a pause that grows, while later ones of the same subject wait and others do not. One that takes
// nothing gets a few attempts a second, see health.
//
// # Sending
//
// A [Sender] signs as Standard Webhooks says, by the library of that project, which is the one that receivers use and
// that the project's own test vectors hold. It dials through package dialguard.
package webhook
