package block

import "testing"

// Runs merge exactly where blocks lie together; every block keeps its checksum at its place.
func TestResolutionMerges(t *testing.T) {
	var r Resolution
	add := []Piece{
		{Kind: Zeros}, {Kind: Zeros},
		{Kind: Stored, NS: 1, SCO: 7, Off: 10}, {Kind: Stored, NS: 1, SCO: 7, Off: 11}, // one run
		{Kind: Stored, NS: 1, SCO: 7, Off: 13}, // a gap
		{Kind: Stored, NS: 2, SCO: 7, Off: 14}, // another namespace
		{Kind: Stored, NS: 2, SCO: 8, Off: 15}, // another SCO
		{Kind: Logged, Pos: 5}, {Kind: Logged, Pos: 6},
		{Kind: InRAM, Page: 70}, {Kind: InRAM, Page: 71}, // pages are referenced one by one
	}
	for i, p := range add {
		r.Add(p, uint32(i))
	}
	want := []uint32{2, 2, 1, 1, 1, 2, 1, 1}
	if len(r.Pieces) != len(want) {
		t.Fatalf("%d pieces, want %d: %+v", len(r.Pieces), len(want), r.Pieces)
	}
	first := uint32(0)
	for i, p := range r.Pieces {
		if p.Count != want[i] || p.First != first {
			t.Errorf("piece %d: %+v, want %d blocks from checksum %d", i, p, want[i], first)
		}
		first += p.Count
	}
	for i, s := range r.Sums {
		if s != uint32(i) {
			t.Errorf("checksum %d is %d", i, s)
		}
	}
	if r.Reset(); len(r.Pieces)+len(r.Sums) != 0 {
		t.Error("Reset left something")
	}
}
