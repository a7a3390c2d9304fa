package metrics

import "github.com/prometheus/client_golang/prometheus"

// Figure is one number in /metrics that comes from outside the server.
type Figure struct {
	Name, Help string
	Labels     map[string]string // the same names in all figures of one Name; nil: none
	Total      bool              // it only grows, and its name ends in _total
	Value      float64
	// Histogram, when not nil, is the figure instead of Value.
	Histogram *Histogram
}

// Histogram is a distribution of values.
type Histogram struct {
	Count   uint64
	Sum     float64
	Buckets map[float64]uint64 // how many values are at most the key
}

// Figures collects the results of a function on each read of the metrics.
type Figures func() []Figure

var _ prometheus.Collector = Figures(nil)

// Describe sends no descriptions: the figures are known only when they are read.
func (Figures) Describe(chan<- *prometheus.Desc) {}

// Collect reads the figures.
func (f Figures) Collect(to chan<- prometheus.Metric) {
	for _, one := range f() {
		kind := prometheus.GaugeValue
		if one.Total {
			kind = prometheus.CounterValue
		}
		desc := prometheus.NewDesc(one.Name, one.Help, nil, one.Labels)
		if h := one.Histogram; h != nil {
			to <- prometheus.MustNewConstHistogram(desc, h.Count, h.Sum, h.Buckets)
			continue
		}
		to <- prometheus.MustNewConstMetric(desc, kind, one.Value)
	}
}
