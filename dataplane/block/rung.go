package block

// Rung is where bytes of a read came from, the quickest first: what took several counts as the last of them.
type Rung uint8

const (
	FromNothing       Rung = iota // a hole, or zeros
	FromOverlay                   // RAM of the Volume Driver in this process
	FromBlockCache                // RAM of the block cache
	FromBlockSSD                  // its SSD tier
	FromFragmentCache             // a fragment on SSD
	FromDrive                     // a drive of an ASD in this process
	FromShortCircuit              // the drive of an ASD in another process, read by this one
	FromASD                       // an ASD, over its socket
	FromJournal                   // what left the overlay's RAM before it was sealed
	FromDriver                    // the Volume Driver in another process
	FromRebuild                   // other fragments
	Rungs             int  = iota
)

var rungNames = [Rungs]string{"zeros", "overlay", "block-cache", "block-cache-ssd", "fragment-cache", "drive",
	"short-circuit", "asd", "journal", "driver", "rebuild"}

// String is the rung's name in metrics and reports.
func (r Rung) String() string { return rungNames[r] }
