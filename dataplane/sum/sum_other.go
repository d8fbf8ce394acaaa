//go:build !amd64

package sum

var vectors = false

func rounds(*[lanes][4]uint64, *[lanes]*byte, int) { panic("BUG: sum: no vectors here") }
