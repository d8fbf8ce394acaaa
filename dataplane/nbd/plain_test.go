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

// All that these tests show holds on plain loops too.
func TestWithoutURing(t *testing.T) { ringtest.Again(t) }
