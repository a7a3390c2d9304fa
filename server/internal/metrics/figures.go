package metrics

import "github.com/prometheus/client_golang/prometheus"

// Figure is one number in /metrics that comes from outside the server.
type Figure struct {
	Name, Help string
	Total      bool // it only grows, and its name ends in _total
	Value      float64
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
		to <- prometheus.MustNewConstMetric(prometheus.NewDesc(one.Name, one.Help, nil, nil), kind, one.Value)
	}
}
