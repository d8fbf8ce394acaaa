package journal
import "testing"
func TestZZ(t *testing.T) { l := startLoop(t, 64<<20); runModel(t, l, 0x1e85, 89) }
