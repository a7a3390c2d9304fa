package metrics

import "github.com/prometheus/client_golang/prometheus"

// Figure is one number that /metrics shows, which somebody else than the server knows.
type Figure struct {
	Name, Help string
	Total      bool // it only grows; its name ends in _total
	Value      float64
}

// Figures collects what a function answers each time that the metrics are read.
type Figures func() []Figure

var _ prometheus.Collector = Figures(nil)

// Describe tells nothing beforehand: which figures there are is known when they are read.
func (Figures) Describe(chan<- *prometheus.Desc) {}

// Collect reads the figures.
func (f Figures) Collect(to chan<- prometheus.Metric) {
	for _, one := range f() {
		kind := prometheus.GaugeValue
		if one.Total {
			kind = prometheus.CounterValue
		}
		to <- prometheus.MustNewConstMetric(prometheus.NewDesc(one.Name, one.Help, nil, nil), kind, one.Value)
	}
}
