package node

import (
	"bytes"
	"sync"
)

// tail keeps the end of a log, for a failure that comes once in an hour and not again.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailBytes = 64 << 10

// Write implements io.Writer.
func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b = append(l.b, p...); len(l.b) > 2*tailBytes {
		l.b = append(l.b[:0], l.b[len(l.b)-tailBytes:]...)
	}
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.b[max(0, len(l.b)-tailBytes):]
	if i := bytes.IndexByte(b, '\n'); i >= 0 && len(l.b) > len(b) {
		b = b[i+1:]
	}
	return string(b)
}
