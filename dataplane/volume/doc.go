// Package volume is the Volume Driver: it turns the block writes of a vDisk into SCOs and knows where
// every block lies. It is the only writer of its vDisk.
//
//	Mutate   number it > journal > overlay > done                                  write.go
//	Resolve  overlay, else map                                                     read.go
//	Extents  what is allocated: the same, by pages                                 extents.go, warm.go
//	seal     close a batch > SCO > proxy > commit in order > map > drop the batch  seal.go, content.go, apply.go
//	         so many at once over all vDisks; on full drives                       sealer.go, prune.go
//	RAM      when blocks leave it for the journal                                  ram.go
//	relieve  what pins the journal's tail is sealed or copied forward              relieve.go
//	clean    live blocks of sparse SCOs move into a new one, empty SCOs go         clean.go, gather.go
//	mend     what fails its own checksum is rebuilt from other fragments           mend.go
//	open     map checkpoint + indexes of later SCOs + journal                      open.go
//
// A Volume's state belongs to its loop. Sealing, cleaning and opening run in goroutines that touch that
// state only through messages to the loop; what they read directly (a closed batch, pages that it
// holds) changes only while they wait for the loop.
//
// Why nothing acknowledged is lost: a mutation is done when its journal record and all before it are
// complete. A batch closes between two mutations and is sealed whole, so a SCO covers a range of
// sequences without holes and batches commit in the order they closed. The journal gives space back
// only below the highest sequence of a committed SCO. So at any moment the committed SCOs cover all
// sequences up to some S, the journal all those above it that were acknowledged, and opening puts the
// two together.
package volume
