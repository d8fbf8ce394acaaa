package blockcache

import (
	"testing"

	"vstor/dataplane/leaktest"
	"vstor/dataplane/ring"
)

func TestMain(m *testing.M) { leaktest.Main(m, ring.Probe) }
