// Calls of gRPC by its Go library, at both ends: `calls serve` is a backend, `calls load` a client that counts what failed.
//
// The library decides what goes over the wire beside the calls: its estimate of the bandwidth sends a PING with the content of
// each round trip and widens its windows, its windows are given back in small pieces, its keepalives ask whether anybody is
// there. `calls load` adds what programs do: small calls, answers larger than a window, long streams, calls given up early.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// octets is a codec for messages that are bytes, so that no generated code is needed.
type octets struct{}

func (octets) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (octets) Unmarshal(data []byte, v any) error { *v.(*[]byte) = append([]byte(nil), data...); return nil }
func (octets) Name() string                       { return "octets" }

const (
	small   = 16
	large   = 200_000 // more than a stream's first window of 65,535
	replies = 20      // of a stream
)

// answer: as many messages as the request's first byte says, each as long as the request says in text behind it.
func answer(_ any, stream grpc.ServerStream) error {
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	var count, size int
	if _, err := fmt.Sscanf(string(request), "%d %d", &count, &size); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	message := []byte(strings.Repeat("x", size))
	for range count {
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
	return nil
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := grpc.NewServer(
		grpc.UnknownServiceHandler(answer), grpc.ForceServerCodec(octets{}), grpc.MaxConcurrentStreams(1000),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	return server.Serve(listener)
}

// connections counts those that a channel has opened and lost.
type connections struct{ opened, lost atomic.Int64 }

func (c *connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *connections) HandleRPC(context.Context, stats.RPCStats)                         {}
func (c *connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *connections) HandleConn(_ context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		c.opened.Add(1)
	case *stats.ConnEnd:
		c.lost.Add(1)
	}
}

// Totals of a run, written as JSON.
type Totals struct {
	Calls     int64            `json:"calls"`
	Messages  int64            `json:"messages"`
	GivenUp   int64            `json:"given_up"`
	Failed    int64            `json:"failed"`
	Opened    int64            `json:"opened"`
	Lost      int64            `json:"lost"`
	Seconds   float64          `json:"seconds"`
	Statuses  map[string]int64 `json:"statuses"`
	FirstWord string           `json:"first"`
}

// call makes the n-th call of a channel: one in 50 is given up, one in 200 has a large answer, one in 500 is a stream.
func call(channel *grpc.ClientConn, n int64) (messages int64, givenUp bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	count, size := 1, small
	switch {
	case n%500 == 499:
		count = replies
	case n%200 == 199:
		size = large
	case n%50 == 49:
		time.AfterFunc(100*time.Microsecond, cancel)
		givenUp = true
	}
	stream, err := channel.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/bench.Calls/Answer", grpc.ForceCodec(octets{}))
	if err != nil {
		return 0, givenUp, err
	}
	request := []byte(fmt.Sprintf("%d %d", count, size))
	if err := stream.SendMsg(&request); err != nil && err != io.EOF {
		return 0, givenUp, err
	}
	if err := stream.CloseSend(); err != nil {
		return 0, givenUp, err
	}
	for {
		var reply []byte
		err := stream.RecvMsg(&reply)
		if err == io.EOF {
			break
		} else if err != nil {
			return messages, givenUp, err
		}
		if len(reply) != size {
			return messages, givenUp, fmt.Errorf("a message of %d bytes in place of %d", len(reply), size)
		}
		messages++
	}
	if messages != int64(count) {
		return messages, givenUp, fmt.Errorf("%d messages in place of %d", messages, count)
	}
	return messages, givenUp, nil
}

func load(address, authority string, channels int, calls int64, atATime int, probe time.Duration) error {
	var totals Totals
	var seen connections
	var lock sync.Mutex
	totals.Statuses = map[string]int64{}
	began := time.Now()
	var group sync.WaitGroup
	for range channels {
		channel, err := grpc.NewClient(
			"passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority),
			grpc.WithStatsHandler(&seen), grpc.WithDisableRetry(), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: probe, Timeout: 20 * time.Second, PermitWithoutStream: true}),
		)
		if err != nil {
			return err
		}
		var next atomic.Int64
		for range atATime {
			group.Add(1)
			go func() {
				defer group.Done()
				for n := next.Add(1) - 1; n < calls; n = next.Add(1) - 1 {
					messages, givenUp, err := call(channel, n)
					atomic.AddInt64(&totals.Calls, 1)
					atomic.AddInt64(&totals.Messages, messages)
					if givenUp {
						atomic.AddInt64(&totals.GivenUp, 1)
					}
					if err == nil || givenUp && status.Code(err) == codes.Canceled {
						continue
					}
					lock.Lock()
					totals.Failed++
					totals.Statuses[status.Code(err).String()]++
					if totals.FirstWord == "" {
						totals.FirstWord = err.Error()
					}
					lock.Unlock()
				}
			}()
		}
	}
	group.Wait()
	totals.Seconds = time.Since(began).Seconds()
	totals.Opened, totals.Lost = seen.opened.Load(), seen.lost.Load()
	return json.NewEncoder(os.Stdout).Encode(totals)
}

func main() {
	channels := flag.Int("channels", 1, "connections")
	calls := flag.Int64("calls", 1000, "calls on each channel")
	atATime := flag.Int("at-a-time", 16, "calls at a time on each channel")
	authority := flag.String("authority", "calls.bench.example", "the calls' :authority")
	probe := flag.Duration("keepalive", 10*time.Second, "between two keepalives (the library allows 10s and more)")
	flag.Parse()
	var err error
	switch flag.Arg(0) {
	case "serve":
		err = serve(flag.Arg(1))
	case "load":
		err = load(flag.Arg(1), *authority, *channels, *calls, *atATime, *probe)
	default:
		err = fmt.Errorf("calls [OPTION…] serve|load ADDRESS")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
