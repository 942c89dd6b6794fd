package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// message makes the message with this number.
func message(o order, number int) *primitive.Message {
	body := fmt.Sprintf("%s %s %d", o.topic, o.group, number)
	made := primitive.NewMessage(o.topic, []byte(body))
	made.WithTag([]string{"TagA", "TagB", "TagC"}[number%3])
	made.WithKeys([]string{fmt.Sprintf("%s-%d", o.group, number)})
	made.WithProperty("number", strconv.Itoa(number))
	return made
}

// sendPlain sends messages with keys, tags and a property `number`, one by one.
func sendPlain(o order) error {
	return eachSent(o, nil, func(message *primitive.Message, result *primitive.SendResult) {
		tell("sent", sent(message, result))
	})
}

// sendDelayed sends messages that are to be delivered a second later (delay level 1).
func sendDelayed(o order) error {
	later := func(message *primitive.Message) { message.WithDelayTimeLevel(1) }
	return eachSent(o, later, func(message *primitive.Message, result *primitive.SendResult) {
		told := sent(message, result)
		// Where it stands now is not where it will be delivered from.
		delete(told, "queue")
		delete(told, "offset")
		tell("sent", told)
	})
}

// byNumber chooses the queue n modulo the number of queues for message n.
type byNumber struct{}

func (byNumber) Select(message *primitive.Message, queues []*primitive.MessageQueue, _ string) *primitive.MessageQueue {
	number, err := strconv.Atoi(message.GetProperty("number"))
	if err != nil {
		panic(err)
	}
	return queues[number%len(queues)]
}

// sendOrdered sends each message to the queue its number chooses.
func sendOrdered(o order) error {
	return eachSent(o, nil, func(message *primitive.Message, result *primitive.SendResult) {
		tell("sent", sent(message, result))
	}, producer.WithQueueSelector(byNumber{}))
}

// sendBatch sends all messages as one batch.
func sendBatch(o order) error {
	return withProducer(o, func(sender rocketmq.Producer) error {
		var batch []*primitive.Message
		for number := 0; number < o.count; number++ {
			batch = append(batch, message(o, number))
		}
		result, err := sender.SendSync(context.Background(), batch...)
		if err != nil || result.Status != primitive.SendOK {
			return fmt.Errorf("batch not stored: %v, %v", result, err)
		}
		for number, message := range batch {
			told := sent(message, result)
			told["offset"] = result.QueueOffset + int64(number)
			delete(told, "id")
			tell("sent", told)
		}
		return nil
	})
}

func eachSent(
	o order,
	change func(*primitive.Message),
	done func(*primitive.Message, *primitive.SendResult),
	options ...producer.Option,
) error {
	return withProducer(o, func(sender rocketmq.Producer) error {
		for number := 0; number < o.count; number++ {
			message := message(o, number)
			if change != nil {
				change(message)
			}
			result, err := sender.SendSync(context.Background(), message)
			if err != nil || result.Status != primitive.SendOK {
				return fmt.Errorf("message %d not stored: %v, %v", number, result, err)
			}
			done(message, result)
		}
		return nil
	}, options...)
}

func producerOptions(o order) []producer.Option {
	return []producer.Option{
		producer.WithNsResolver(primitive.NewPassthroughResolver([]string{o.nameserver})),
		producer.WithGroupName(o.group),
		producer.WithSendMsgTimeout(10 * time.Second),
		producer.WithRetry(2),
	}
}

func withProducer(o order, work func(rocketmq.Producer) error, options ...producer.Option) error {
	sender, err := rocketmq.NewProducer(append(producerOptions(o), options...)...)
	if err != nil {
		return err
	}
	if err := sender.Start(); err != nil {
		return err
	}
	if err := work(sender); err != nil {
		return err
	}
	return sender.Shutdown()
}
