package pagemap

import (
	"slices"
	"time"
)

// The maps of a budget share it, and each makes room when it does something itself. One whose vDisk is idle
// does nothing: what it read last would stay in RAM for good, and another that must write would find the
// budget overdrawn with nothing of its own to evict. So a map that still finds it overdrawn after its own
// eviction has all others make room, on their loops. One that is Full looks again until there is room.

// squeezePause is how often that happens at most, per map.
const squeezePause = 5 * time.Millisecond

func (b *Budget) add(m *Map) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.maps = append(b.maps, m)
	b.shared.Store(len(b.maps) > 1)
}

func (b *Budget) remove(m *Map) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.maps = slices.DeleteFunc(b.maps, func(o *Map) bool { return o == m })
	b.shared.Store(len(b.maps) > 1)
}

// relieve has all maps but m make room.
func (b *Budget) relieve(m *Map) {
	b.mu.Lock()
	others := slices.DeleteFunc(slices.Clone(b.maps), func(o *Map) bool { return o == m })
	b.mu.Unlock()
	for _, o := range others {
		o.opts.Poster.PostFunc(o.Relieve)
	}
}

// squeeze begins to make room elsewhere, if there are others and it is not at it.
func (m *Map) squeeze() {
	if m.squeezing || m.flush.closing || !m.opts.Budget.shared.Load() {
		return
	}
	m.squeezing = true
	m.spawn(func() func() {
		m.opts.Budget.relieve(m)
		time.Sleep(squeezePause)
		return func() {
			m.squeezing = false
			if len(m.rooms) > 0 {
				m.maintain()
			}
		}
	})
}

// Relieve makes room if other maps of the budget need it. On the loop.
func (m *Map) Relieve() {
	if !m.flush.closing {
		m.maintain()
	}
}
