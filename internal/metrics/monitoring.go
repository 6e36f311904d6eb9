package metrics

import _ "embed"

//go:embed monitoring/dashboard.json
var dashboard string

//go:embed monitoring/alerts.yaml
var alerts string

// Dashboard is a dashboard for Grafana, as the JSON that its page for imports
// takes.
func Dashboard() string { return dashboard }

// Alerts are rules for Prometheus, as a file of rules.
func Alerts() string { return alerts }
