package tokens

// FeatureAnswersWaiting returns how many answers of a source are to be compared or are being compared.
func (s *Service) FeatureAnswersWaiting() int {
	s.featureChanges.mu.Lock()
	defer s.featureChanges.mu.Unlock()
	return len(s.featureChanges.pending) + s.featureChanges.busy
}

// SweepEachPass has every pass of WriteNotices forget notices of long ago.
func (s *Service) SweepEachPass() { s.notices.sweepEach = 1 }
