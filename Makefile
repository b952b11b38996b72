# Names for commands; each works without make, as the lines show.
.PHONY: demo demo-up demo-down test build lint generate fuzz bench soak scale kgateway kind-demo

demo: ; @sh .ci/demo
demo-up: ; @sh .ci/demo up
demo-down: ; @sh .ci/demo down
test: ; @sh .ci/test
build: ; @sh .ci/need go && CGO_ENABLED=0 sh .ci/compile "building isthmus" go build -v -ldflags='-s -w' -o bin/isthmus ./cmd/isthmus
lint: ; @sh .ci/lint
generate: ; @sh .ci/need go && go generate ./...
fuzz: ; @sh .ci/fuzz 60s && cd e2e && go test ./policytest -v -count 1 -timeout 60m -args -rounds 40
bench: ; @sh .ci/need go && cd e2e/bench && sh ../../.ci/compile "building the benchmarks" go build -o ../../bin/bench . && ../../bin/bench && cd ../.. && go test -run '^$$' -bench Mesh ./hbone/wds
soak: ; @sh .ci/need go && cd e2e && go test ./soak -run TestSoak -v -count 1 -timeout 60m -args -duration 30m
scale: ; @sh .ci/need go && cd e2e && go test ./scale -run TestScale -v -count 1 -timeout 30m -args -edges 50 -namespaces 1000 -services 5000 -churn 1m && go test ./wdstest -run TestManyWorkloads -v -count 1 -timeout 30m -args -entries 10000 && cd .. && go test ./cmd/isthmus -run 'TestALargeClusterIsChecked|TestManyFilesAreChecked' -v -count 1 -timeout 15m -args -namespaces 5000 -documents 50000
kgateway: ; @sh .ci/need go && cd e2e && go test ./kgatewaytest -v -count 1 -timeout 60m -args -kgateway
kind-demo: ; @bash e2e/kind/demo.sh
