import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** What a program does that asks for messages by itself. */
final class Pulling {
    private Pulling() {}

    /** Reads every queue from its first to its last offset and keeps the group's offsets at the server. */
    static void everything(Order order) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(order.group);
        consumer.setNamesrvAddr(order.nameserver);
        consumer.start();
        try {
            Set<MessageQueue> queues = Order.patiently(() -> consumer.fetchSubscribeMessageQueues(order.topic));
            Order.expect(!queues.isEmpty(), "no queues");
            int pulled = 0;
            for (MessageQueue queue : queues) {
                long last = consumer.maxOffset(queue);
                long next = consumer.minOffset(queue);
                Order.expect(next == 0, "a new queue starts at " + next);
                while (next < last) {
                    PullResult result = consumer.pull(queue, order.subscription, next, 32);
                    Order.expect(result.getNextBeginOffset() > next, "no progress: " + result);
                    next = result.getNextBeginOffset();
                    if (result.getPullStatus() == PullStatus.FOUND) {
                        for (MessageExt message : result.getMsgFoundList()) {
                            Fact.received(message).with("answer", "taken").tell();
                            pulled++;
                        }
                    }
                }
                PullResult end = consumer.pull(queue, order.subscription, last, 32);
                Order.expect(end.getPullStatus() == PullStatus.NO_NEW_MSG, "at the end: " + end);
                keep(consumer, queue, last);
                new Fact("offset").with("queue", queue.getQueueId()).with("kept", last).tell();
            }
            Order.expect(pulled == order.count, pulled + " instead of " + order.count);
        } finally {
            consumer.shutdown();
        }
    }

    /** Keeps an offset at the server and reads it back; keeping is one-way, so reading may have to be repeated. */
    private static void keep(DefaultMQPullConsumer consumer, MessageQueue queue, long offset) throws Exception {
        consumer.updateConsumeOffset(queue, offset);
        consumer.getDefaultMQPullConsumerImpl().getOffsetStore().persist(queue);
        for (int tries = 0; tries < 50; tries++) {
            if (consumer.fetchConsumeOffset(queue, true) == offset) {
                return;
            }
            TimeUnit.MILLISECONDS.sleep(100);
        }
        throw new IllegalStateException("the offset " + offset + " of " + queue + " was not kept");
    }

    /** Sends messages and finds each again by its place, by its unique id and by its key. */
    static void lookUp(Order order) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(order.group);
        producer.setNamesrvAddr(order.nameserver);
        producer.setSendMsgTimeout(10_000);
        producer.start();
        try {
            long begin = System.currentTimeMillis() - 60_000;
            List<Message> sent = new ArrayList<>();
            List<SendResult> results = new ArrayList<>();
            for (int number = 0; number < order.count; number++) {
                sent.add(Sending.message(order, number));
                Message message = sent.get(number);
                results.add(Order.patiently(() -> producer.send(message)));
            }
            for (int number = 0; number < order.count; number++) {
                Message message = sent.get(number);
                SendResult result = results.get(number);
                same(message, producer.viewMessage(order.topic, result.getOffsetMsgId()), "its place");
                same(message, producer.viewMessage(order.topic, result.getMsgId()), "its unique id");
                same(message, byKey(producer, message, begin), "its key");
                new Fact("found").with("key", message.getKeys()).answered(result).tell();
            }
        } finally {
            producer.shutdown();
        }
    }

    /** A stock server indexes keys a moment after it has stored a message. */
    private static MessageExt byKey(DefaultMQProducer producer, Message message, long begin) throws Exception {
        for (int tries = 0; ; tries++) {
            try {
                long end = System.currentTimeMillis() + 60_000;
                QueryResult found = producer.queryMessage(message.getTopic(), message.getKeys(), 8, begin, end);
                Order.expect(found.getMessageList().size() == 1, "found by key: " + found.getMessageList());
                return found.getMessageList().get(0);
            } catch (org.apache.rocketmq.client.exception.MQClientException missing) {
                if (tries == 50) {
                    throw missing;
                }
                TimeUnit.MILLISECONDS.sleep(100);
            }
        }
    }

    private static void same(Message sent, MessageExt found, String by) {
        Order.expect(found != null, "not found by " + by + ": " + sent.getKeys());
        Order.expect(Sending.text(sent).equals(Sending.text(found)), "found by " + by + ": " + found);
    }
}
