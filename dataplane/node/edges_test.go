package node

import (
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/edge/proto"
	"vstor/dataplane/meta"
	"vstor/dataplane/router"
)

// Who holds a vDisk comes back from the metadata store as it was kept, whichever of it is there.
func TestHoldersAreKept(t *testing.T) {
	s, err := meta.OpenPebble(meta.PebbleOptions{Dir: "/meta", FS: vfs.NewMem(), Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h, ctx := holders{s}, context.Background()
	for _, want := range []router.Record{
		{},
		{Holder: proto.Opener{1, 2}, Tenure: 5, Former: 4},
		{Holder: proto.Opener{3}, Tenure: 6},
		{Tenure: 6, Former: 5},
	} {
		if want.Tenure > 0 {
			if err := h.KeepHolder(ctx, 7, want); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := h.read(ctx, 7); err != nil || got != want {
			t.Errorf("%+v came back as %+v, %v", want, got, err)
		}
	}
	if err := h.drop(ctx, 7); err != nil {
		t.Fatal(err)
	}
	if got, err := h.read(ctx, 7); err != nil || got != (router.Record{}) {
		t.Errorf("a vDisk that was removed: %+v, %v", got, err)
	}
}
