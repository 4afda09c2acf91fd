"""How a running service is watched: Prometheus's configuration and rules, Grafana's dashboards."""
