"""What works on the chart beside Helm: its manifests for `kubectl apply -k`, its table of values, and its lint."""
