package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// settler says, by a message's number modulo 5: commit; roll back; nothing, and commit when asked; nothing, and roll back
// when asked; nothing, nothing when asked first, and commit when asked again.
type settler struct {
	sync.Mutex
	asked map[string]int
	open  sync.WaitGroup
}

// How often a message has to be asked about until it is settled, by its number modulo 5.
var answers = [5]int{0, 0, 1, 1, 2}

func (s *settler) ExecuteLocalTransaction(message *primitive.Message) primitive.LocalTransactionState {
	switch number(message) % 5 {
	case 0:
		return primitive.CommitMessageState
	case 1:
		return primitive.RollbackMessageState
	default:
		return primitive.UnknowState
	}
}

func (s *settler) CheckLocalTransaction(message *primitive.MessageExt) primitive.LocalTransactionState {
	kind := number(&message.Message) % 5
	s.Lock()
	s.asked[message.GetKeys()]++
	times := s.asked[message.GetKeys()]
	s.Unlock()
	answer := primitive.CommitMessageState
	switch {
	case kind == 1 || kind == 3:
		answer = primitive.RollbackMessageState
	case kind == 4 && times == 1:
		answer = primitive.UnknowState
	}
	tell("checked", fact{
		"key":         message.GetKeys(),
		"body":        string(message.Body),
		"id":          message.MsgId,
		"transaction": message.TransactionId,
		"times":       times,
		"answer":      word(answer),
	})
	if times <= answers[kind] {
		s.open.Done()
	}
	return answer
}

// settle sends half messages and ends when each was asked about as often as it had to be.
func settle(o order) error {
	listener := &settler{asked: map[string]int{}}
	for number := 0; number < o.count; number++ {
		listener.open.Add(answers[number%5])
	}
	sender, err := rocketmq.NewTransactionProducer(listener, producerOptions(o)...)
	if err != nil {
		return err
	}
	if err := sender.Start(); err != nil {
		return err
	}
	for number := 0; number < o.count; number++ {
		message := message(o, number)
		result, err := sender.SendMessageInTransaction(context.Background(), message)
		if err != nil || result.Status != primitive.SendOK {
			return fmt.Errorf("half message %d not stored: %v, %v", number, result, err)
		}
		told := sent(message, result.SendResult)
		told["transaction"] = result.TransactionID
		told["local"] = word(result.State)
		tell("half", told)
	}
	listener.open.Wait()
	// One-way answers need a moment on their way.
	time.Sleep(more)
	return sender.Shutdown()
}

func number(message *primitive.Message) int {
	number, err := strconv.Atoi(message.GetProperty("number"))
	if err != nil {
		panic(err)
	}
	return number
}

func word(state primitive.LocalTransactionState) string {
	switch state {
	case primitive.CommitMessageState:
		return "commit"
	case primitive.RollbackMessageState:
		return "rollback"
	default:
		return "unknown"
	}
}
