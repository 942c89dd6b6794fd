package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// So long a consumer stays when it has everything, to see what should not come.
const more = 1500 * time.Millisecond

// How a push consumer takes its messages.
type manner int

const (
	concurrently manner = iota
	// sendingBack gives each message back the first time.
	sendingBack
	// orderly takes a queue's messages one after the other, under the server's lock.
	orderly
)

// taken counts different messages.
type taken struct {
	sync.Mutex
	bodies map[string]bool
	wanted int
	all    chan struct{}
}

func (t *taken) add(message *primitive.MessageExt) {
	received(message, "taken")
	t.Lock()
	defer t.Unlock()
	before := len(t.bodies)
	t.bodies[string(message.Body)] = true
	if before < t.wanted && len(t.bodies) == t.wanted {
		close(t.all)
	}
}

func (t *taken) exactly() error {
	t.Lock()
	defer t.Unlock()
	if len(t.bodies) != t.wanted {
		return fmt.Errorf("%d instead of %d", len(t.bodies), t.wanted)
	}
	return nil
}

func consumerOptions(o order) []consumer.Option {
	return []consumer.Option{
		consumer.WithNsResolver(primitive.NewPassthroughResolver([]string{o.nameserver})),
		consumer.WithGroupName(o.group),
		consumer.WithConsumerModel(consumer.Clustering),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}
}

func selector(o order) consumer.MessageSelector {
	if strings.HasPrefix(o.subscription, "sql:") {
		expression := strings.TrimPrefix(o.subscription, "sql:")
		return consumer.MessageSelector{Type: consumer.SQL92, Expression: expression}
	}
	return consumer.MessageSelector{Type: consumer.TAG, Expression: o.subscription}
}

// consume ends when it has `count` different messages and a moment has passed.
func consume(o order, how manner) error {
	options := append(consumerOptions(o), consumer.WithConsumerOrder(how == orderly))
	reader, err := rocketmq.NewPushConsumer(options...)
	if err != nil {
		return err
	}
	got := &taken{bodies: map[string]bool{}, wanted: o.count, all: make(chan struct{})}
	listen := func(context context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, message := range messages {
			if how == sendingBack && message.ReconsumeTimes == 0 {
				received(message, "later")
				if concurrent, found := primitive.GetConcurrentlyCtx(context); found {
					concurrent.DelayLevelWhenNextConsume = 1
				}
				return consumer.ConsumeRetryLater, nil
			}
			got.add(message)
		}
		return consumer.ConsumeSuccess, nil
	}
	if err := reader.Subscribe(o.topic, selector(o), listen); err != nil {
		return err
	}
	if err := reader.Start(); err != nil {
		return err
	}
	tell("started", fact{})
	// endInTime ends a wait in vain.
	<-got.all
	time.Sleep(more)
	if err := reader.Shutdown(); err != nil {
		return err
	}
	return got.exactly()
}

// pull asks for messages by itself until it has `count` different ones, and then finds nothing more.
func pull(o order) error {
	reader, err := rocketmq.NewPullConsumer(consumerOptions(o)...)
	if err != nil {
		return err
	}
	if err := reader.Subscribe(o.topic, selector(o)); err != nil {
		return err
	}
	if err := reader.Start(); err != nil {
		return err
	}
	got := &taken{bodies: map[string]bool{}, wanted: o.count, all: make(chan struct{})}
	for complete := false; ; {
		request, err := reader.Poll(context.Background(), more)
		if consumer.IsNoNewMsgError(err) {
			if complete {
				break
			}
			continue
		}
		if err != nil {
			return err
		}
		for _, message := range request.GetMsgList() {
			got.add(message)
		}
		reader.ACK(context.Background(), request, consumer.ConsumeSuccess)
		select {
		case <-got.all:
			complete = true
		default:
		}
	}
	if err := reader.Shutdown(); err != nil {
		return err
	}
	return got.exactly()
}
