package dio

import (
	"testing"

	"vstor/dataplane/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m, nil) }
