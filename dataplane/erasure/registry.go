package erasure

import "sync"

// Registry makes each Codec once. The zero Registry is ready; safe for concurrent use. Its size is
// bounded by the number of different (k,m), about 2000.
type Registry struct {
	mu     sync.RWMutex
	codecs map[[2]uint8]*Codec // guarded by mu
}

// Codec returns the codec for k and m, making it on first use. Errors: Invalid.
func (r *Registry) Codec(k, m int) (*Codec, error) {
	if k < 1 || m < 0 || k+m > ShardsMax {
		return New(k, m) // says what is wrong
	}
	key := [2]uint8{uint8(k), uint8(m)}
	r.mu.RLock()
	c := r.codecs[key]
	r.mu.RUnlock()
	if c != nil {
		return c, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c = r.codecs[key]; c != nil {
		return c, nil
	}
	c, err := New(k, m)
	if err != nil {
		return nil, err
	}
	if r.codecs == nil {
		r.codecs = make(map[[2]uint8]*Codec)
	}
	r.codecs[key] = c
	return c, nil
}
