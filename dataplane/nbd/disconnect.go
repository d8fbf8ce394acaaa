package nbd

// Disconnect cuts off the connections whose export fits: what they have asked for is done or not, as if the
// network had gone, and no reply leaves any more. It does not wait for their end; Export.Close tells of that.
// A connection whose handshake is still under way is not among them. Any goroutine may call it; fits must not
// block and not call back.
func (s *Server) Disconnect(fits func(Export) bool) {
	s.mu.Lock()
	var list []*conn
	for c := range s.conns {
		if fits(c.exp) {
			list = append(list, c)
		}
	}
	s.mu.Unlock()
	for _, c := range list {
		c.share.loop.PostFunc(c.abort)
	}
}
