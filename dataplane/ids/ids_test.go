package ids

import "testing"

func TestBlocks(t *testing.T) {
	for _, c := range []struct{ n, want int64 }{{0, 0}, {1, 1}, {4096, 1}, {4097, 2}, {64 << 40, 16 << 30}} {
		if got := Blocks(c.n); got != c.want {
			t.Errorf("Blocks(%d) = %d, want %d", c.n, got, c.want)
		}
	}
}
