package tidy

// importLaw is the law of dependency of the design: "a b < c d" lets c and d import a and b, and all that
// a and b may import. "a ! b" forbids it again, whatever came before. A name stands for that package and those
// below it. The first line names what everyone uses.
const importLaw = `
	-                                    < errs invariants ids sum leaktest
	errs invariants ids sum              < stat units supervise
	stat units                           < buf layout lsm
	buf                                  < block ring wire tlsconn
	block ring wire layout tlsconn       < dio
	ring wire tlsconn                    < link

	layout                               < erasure codec
	dio link                             < asd
	asd ! block erasure codec

	lsm                                  < asd meta volume
	dio erasure codec                    < meta nbd pracc blockcache fragcache volume
	meta                                 < proxy
	dio link erasure codec               < edge
	meta proxy                           < maintenance
	edge                                 < router

	layout stat units                    < config
	config                               < api

	volume   ! edge pracc proxy nbd
	edge     ! volume pracc proxy nbd
	pracc    ! volume edge proxy nbd
	proxy    ! volume edge pracc nbd
	nbd      ! volume edge pracc proxy

	asd volume edge pracc proxy nbd blockcache fragcache maintenance router api supervise < node
	node                                 < bench
	node bench                           < tools
`

// folders says where packages lie that are not in dataplane/.
var folders = map[string]string{
	"asd": "asd", "pracc": "pracc", "blockcache": "blockcache", "fragcache": "fragcache", "bench": "bench",
	"tools": "tools",
}

// pure packages turn bytes into structs and numbers into numbers: no IO, no logs, no goroutines.
var pure = []string{"sum", "layout", "wire", "codec", "erasure"}

var pureForbids = []string{"os", "os/exec", "net", "net/http", "log", "log/slog", "syscall", "golang.org/x/sys/unix"}

// kernelPackages may import golang.org/x/sys/unix.
var kernelPackages = []string{"buf", "ring", "dio", "nbd", "proxy", "node", "tools", "asd", "tlsconn",
	"link"}

// Limits, in lines and in characters of a line. A test may be longer: its cases are a list.
const (
	maxFuncLines = 70
	maxFileLines = 500
	maxTestLines = 800
	maxColumns   = 120
	maxDocLines  = 10 // a longer package comment has its own doc.go
)

// longFuncs may exceed maxFuncLines, each for a reason; "package.Func" -> reason. The list shrinks.
var longFuncs = map[string]string{}

// longFiles may exceed maxFileLines; path -> reason. The list shrinks.
var longFiles = map[string]string{}
