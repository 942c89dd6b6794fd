package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// A fact is something that happened, told as one line of JSON.
type fact map[string]any

var telling sync.Mutex

func tell(name string, members fact) {
	members["fact"] = name
	line, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	telling.Lock()
	defer telling.Unlock()
	fmt.Fprintln(os.Stdout, string(line))
}

// sent is what the server answered to a send.
func sent(message *primitive.Message, result *primitive.SendResult) fact {
	return fact{
		"key":       message.GetKeys(),
		"tag":       message.GetTags(),
		"body":      string(message.Body),
		"id":        result.MsgID,
		"offset_id": result.OffsetMsgID,
		"queue":     result.MessageQueue.QueueId,
		"offset":    result.QueueOffset,
	}
}

// received is a message as a consumer sees it.
func received(message *primitive.MessageExt, answer string) {
	tell("received", fact{
		"key":        message.GetKeys(),
		"tag":        message.GetTags(),
		"body":       string(message.Body),
		"id":         message.MsgId,
		"queue":      message.Queue.QueueId,
		"offset":     message.QueueOffset,
		"reconsumed": message.ReconsumeTimes,
		"born":       message.BornTimestamp,
		"stored":     message.StoreTimestamp,
		"answer":     answer,
	})
}
