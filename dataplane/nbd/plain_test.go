package nbd_test

import (
	"os"
	"testing"

	"vstor/dataplane/ring/ringtest"
)

func TestMain(m *testing.M) {
	ringtest.ForbidIfAsked()
	os.Exit(m.Run())
}

// All that these tests show holds on plain loops too. Other people's clients, TLS and the large take most of the
// time and ask no more of a loop than what is left.
func TestWithoutURing(t *testing.T) {
	ringtest.Again(t, "^Test(TLS|Nbd|Qemu|Fio|CopyHoles|Largest|BadPeers|Payloads)")
}
