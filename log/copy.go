package eventlog

// Salt returns the salt of the event that Next has read.
func (s *Scanner) Salt() [16]byte { return [16]byte(s.raw.salted[:saltSize]) }
