"""What runs the service for others: image, compose, Kubernetes, Prometheus, Grafana."""
