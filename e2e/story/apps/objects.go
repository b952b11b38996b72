package apps

import "fmt"

// OrdersObjects are YAML documents for Orders, as image "orders", in a namespace that is there: its service account, its pod, and its Service on
// port 80. labels are those of the pod on top of app, each with a comma before it.
func OrdersObjects(namespace, labels string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: orders, namespace: %[1]s}
---
apiVersion: v1
kind: Pod
metadata: {name: orders, namespace: %[1]s, labels: {app: orders%[2]s}}
spec:
  serviceAccountName: orders
  automountServiceAccountToken: false
  containers:
  - name: orders
    image: orders
    ports: [{containerPort: 8080}]
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: %[1]s}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
`, namespace, labels)
}
