package tokensource

// SetStep has f called between the steps of Save.
func (f *File) SetStep(step func(name string)) { f.step = step }
