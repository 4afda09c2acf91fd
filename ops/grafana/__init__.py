"""Grafana's dashboards as code; `python -m ops.grafana` writes the JSON that Grafana loads."""
