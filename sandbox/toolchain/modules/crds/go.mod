module canary-service/toolchain/crds

go 1.26.0

require (
	github.com/prometheus-operator/prometheus-operator v0.93.0
	github.com/traefik/traefik/v3 v3.7.9
	istio.io/api v1.30.3
	sigs.k8s.io/gateway-api v1.6.1
)
