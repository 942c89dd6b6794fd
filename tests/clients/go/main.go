// Plays one scenario against a RocketMQ server; see tests/clients/README.md.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// An order is what a scenario is asked to do.
type order struct {
	nameserver string
	topic      string
	group      string
	count      int
	// Tags as `A || B`, or `sql:` and an SQL92 expression.
	subscription string
}

var scenarios = map[string]func(order) error{
	"send":            sendPlain,
	"send-batch":      sendBatch,
	"send-delayed":    sendDelayed,
	"send-ordered":    sendOrdered,
	"consume":         func(o order) error { return consume(o, concurrently) },
	"consume-retry":   func(o order) error { return consume(o, sendingBack) },
	"consume-orderly": func(o order) error { return consume(o, orderly) },
	"pull":            pull,
	"transaction":     settle,
}

func main() {
	if len(os.Args) < 6 {
		fmt.Fprintln(os.Stderr, "usage: client SCENARIO NAMESERVER TOPIC GROUP COUNT [SUBSCRIPTION]")
		os.Exit(2)
	}
	count, err := strconv.Atoi(os.Args[5])
	play, known := scenarios[os.Args[1]]
	if err != nil || !known {
		fmt.Fprintln(os.Stderr, "no such scenario, or the count is no number:", os.Args[1], os.Args[5])
		os.Exit(2)
	}
	asked := order{os.Args[2], os.Args[3], os.Args[4], count, "*"}
	if len(os.Args) > 6 {
		asked.subscription = os.Args[6]
	}
	rlog.SetLogLevel("error")
	endInTime()
	if err := play(asked); err != nil {
		tell("failed", fact{"why": err.Error()})
		os.Exit(1)
	}
	tell("done", fact{})
}

// endInTime gives up after CLIENT_SECONDS, a minute if that is not set.
func endInTime() {
	seconds, err := strconv.Atoi(os.Getenv("CLIENT_SECONDS"))
	if err != nil {
		seconds = 60
	}
	time.AfterFunc(time.Duration(seconds)*time.Second, func() {
		tell("failed", fact{"why": fmt.Sprintf("took longer than %d s", seconds)})
		os.Exit(1)
	})
}
