# Names for commands; each works without make, as the lines show.
.PHONY: demo demo-up demo-down test build lint generate fuzz bench soak scale

demo: ; @sh .ci/need go && cd e2e && go run ./demo
demo-up: ; @sh .ci/need go && cd e2e && go run ./demo up
demo-down: ; @sh .ci/need go && cd e2e && go run ./demo down
test: ; @sh .ci/test
build: ; @sh .ci/need go && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o bin/isthmus ./cmd/isthmus
lint: ; @sh .ci/lint
generate: ; @sh .ci/need go && go generate ./...
fuzz: ; @sh .ci/fuzz 60s
bench: ; @sh .ci/need go && go test -run '^$$' -bench . -benchmem ./hbone/...
