package psk13

import (
	"fmt"
	"net"
)

// Alert is the reason that TLS gives when it ends a connection (RFC 8446, 6).
type Alert uint8

const (
	CloseNotify          Alert = 0
	UnexpectedMessage    Alert = 10
	BadRecordMAC         Alert = 20
	RecordOverflow       Alert = 22
	HandshakeFailure     Alert = 40
	IllegalParameter     Alert = 47
	DecodeError          Alert = 50
	DecryptError         Alert = 51
	ProtocolVersion      Alert = 70
	InternalError        Alert = 80
	UserCanceled         Alert = 90
	MissingExtension     Alert = 109
	UnsupportedExtension Alert = 110
	UnknownPSKIdentity   Alert = 115
)

var alertNames = map[Alert]string{
	CloseNotify: "close notify", UnexpectedMessage: "unexpected message", BadRecordMAC: "bad record MAC",
	RecordOverflow: "record overflow", HandshakeFailure: "handshake failure", IllegalParameter: "illegal parameter",
	DecodeError: "decode error", DecryptError: "decrypt error", ProtocolVersion: "protocol version",
	InternalError: "internal error", UserCanceled: "user canceled", MissingExtension: "missing extension",
	UnsupportedExtension: "unsupported extension", UnknownPSKIdentity: "unknown PSK identity",
}

// Error makes an Alert usable as an error.
func (a Alert) Error() string {
	if s, ok := alertNames[a]; ok {
		return "tls: " + s
	}
	return fmt.Sprintf("tls: alert %d", uint8(a))
}

// Error is why this side ended the connection: the alert that the peer was sent, and a sentence that it was
// not.
type Error struct {
	Alert Alert
	Msg   string
}

func (e *Error) Error() string { return e.Msg + " (" + e.Alert.Error() + ")" }

func (e *Error) Unwrap() error { return e.Alert }

func fault(a Alert, format string, args ...any) *Error {
	return &Error{a, fmt.Sprintf(format, args...)}
}

// fromPeer is an alert that the peer sent, in the dress that crypto/tls gives it.
func fromPeer(a Alert) error { return &net.OpError{Op: "remote error", Err: a} }
