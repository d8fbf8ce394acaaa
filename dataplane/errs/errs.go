// Package errs names the kinds of failure that callers act on. A Kind is small, stable and fit for
// the wire; an Error adds the sentence a person reads. Nobody matches on strings.
package errs

import (
	"errors"
	"fmt"
)

// Kind says what went wrong in the terms a caller acts on. The numbers go over the wire and into
// journals: append only.
type Kind uint8

const (
	OK          Kind = iota
	Invalid          // the request itself is wrong; nothing was changed
	Absent           // the thing does not exist: known, not guessed
	Unreachable      // whoever would know did not answer; says nothing about existence
	Corrupt          // bytes came back that fail their checksum or their identity
	Full             // space lacks; deleting something helps
	Refused          // a higher epoch owns it, or it exists with other content
	IO               // the device or the kernel returned an error
	Busy             // in use, or a bound was reached; the same call may go through later
	Exists           // it is there already
	Closed           // the callee is shutting down or has failed for good
	Canceled         // the caller gave up
	Version          // a format or protocol from another version
	Unsupported      // this machine or this build cannot do it
)

var names = [...]string{"ok", "invalid", "absent", "unreachable", "corrupt", "full", "refused",
	"io error", "busy", "exists", "closed", "canceled", "version", "unsupported"}

func (k Kind) String() string {
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error makes a Kind usable as an error where no sentence is needed.
func (k Kind) Error() string { return k.String() }

// Error is a Kind with a sentence and, where there is one, the cause.
type Error struct {
	Kind  Kind
	Msg   string
	Cause error
}

func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Msg
	}
	return e.Msg + ": " + e.Cause.Error()
}

// Unwrap returns the cause, or the Kind itself where there is none, so errors.Is(err, errs.Full) works.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// New makes an error of kind k with a formatted sentence.
func New(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Msg: fmt.Sprintf(format, args...)}
}

// Wrap adds a kind and a sentence to a cause.
func Wrap(k Kind, cause error, format string, args ...any) error {
	return &Error{Kind: k, Msg: fmt.Sprintf(format, args...), Cause: cause}
}

// Of finds the Kind of any error; nil is OK, an error without a Kind is IO.
func Of(err error) Kind {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return IO
}
