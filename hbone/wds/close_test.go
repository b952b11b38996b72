package wds_test

import (
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// Close ends also while answers come and names are asked for.
func TestCloseAmidTraffic(t *testing.T) {
	istiod := wdstest.New(t)
	istiod.SetService(cart())
	istiod.SetWorkload(pod("cart-1", "10.244.1.1", cartKey))
	for range 60 {
		c := client(t, istiod)
		resolve(t, c, "10.96.0.1:80")
		stop := make(chan struct{})
		over := make(chan struct{})
		go func() {
			defer close(over)
			for {
				select {
				case <-stop:
					return
				default:
					istiod.SetService(cart())
				}
			}
		}()
		time.Sleep(2 * time.Millisecond)
		closed := make(chan struct{})
		go func() {
			c.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(10 * time.Second):
			t.Fatal("Close does not end")
		}
		close(stop)
		<-over
	}
}

// Nor does a stream that breaks off amid traffic stop the client.
func TestDisconnectAmidTraffic(t *testing.T) {
	istiod, c := start(t)
	resolve(t, c, "10.96.0.1:80")
	for n := range 4 {
		for range 200 {
			istiod.SetService(cart())
		}
		istiod.Disconnect()
		for range 200 {
			istiod.SetService(cart())
		}
		istiod.Wait(t, "a new stream", func(r wdstest.Request) bool { return r.Stream == n+2 })
	}
	istiod.SetWorkload(pod("cart-2", "10.244.1.2", cartKey))
	istiod.Remove(wdstest.AddressType, "Kubernetes//Pod/shop/cart-1")
	eventually(t, c, "the other pod", func() bool { return resolve(t, c, "10.96.0.1:80").Hops[0].Name == "shop/cart-2" })
}
