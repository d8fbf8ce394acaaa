package tlsconn

import "time"

// NotAfter is when the certificate that is shown now ends; zero without one.
func (s *Server) NotAfter() time.Time {
	m := s.now.Load()
	if m == nil || m.x509 == nil || len(m.x509.Certificates) == 0 || m.x509.Certificates[0].Leaf == nil {
		return time.Time{}
	}
	return m.x509.Certificates[0].Leaf.NotAfter
}
