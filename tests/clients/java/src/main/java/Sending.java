import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/** What a plain producer does. */
final class Sending {
    private Sending() {}

    /** Sends messages with keys, tags and a property `number`, one by one. */
    static void plain(Order order) throws Exception {
        with(order, producer -> {
            for (int number = 0; number < order.count; number++) {
                Message message = message(order, number);
                tell(message, Order.patiently(() -> producer.send(message)));
            }
        });
    }

    /** Sends all messages as one batch. */
    static void batch(Order order) throws Exception {
        with(order, producer -> {
            List<Message> batch = new ArrayList<>();
            for (int number = 0; number < order.count; number++) {
                batch.add(message(order, number));
            }
            SendResult result = Order.patiently(() -> producer.send(batch));
            Order.expect(result.getSendStatus() == SendStatus.SEND_OK, "not stored: " + result);
            String[] ids = result.getMsgId().split(",");
            Order.expect(ids.length == order.count, "ids of a batch: " + result.getMsgId());
            for (int number = 0; number < order.count; number++) {
                new Fact("sent").with("key", batch.get(number).getKeys())
                    .with("tag", batch.get(number).getTags())
                    .with("body", text(batch.get(number)))
                    .with("queue", result.getMessageQueue().getQueueId())
                    .with("offset", result.getQueueOffset() + number)
                    .tell();
            }
        });
    }

    /** Sends messages that are to be delivered a second later (delay level 1). */
    static void delayed(Order order) throws Exception {
        with(order, producer -> {
            for (int number = 0; number < order.count; number++) {
                Message message = message(order, number);
                message.setDelayTimeLevel(1);
                SendResult result = Order.patiently(() -> producer.send(message));
                Order.expect(result.getSendStatus() == SendStatus.SEND_OK, "not stored: " + result);
                // Where it stands now is not where it will be delivered from.
                new Fact("sent").with("key", message.getKeys()).with("tag", message.getTags())
                    .with("body", text(message)).with("id", result.getMsgId()).tell();
            }
        });
    }

    /** Sends message n to the queue n modulo the number of queues. */
    static void ordered(Order order) throws Exception {
        with(order, producer -> {
            for (int number = 0; number < order.count; number++) {
                Message message = message(order, number);
                MessageQueue[] chosen = new MessageQueue[1];
                int chooser = number;
                SendResult result = Order.patiently(() -> producer.send(message, (queues, ignored, argument) -> {
                    chosen[0] = queues.get((Integer) argument % queues.size());
                    return chosen[0];
                }, chooser));
                Order.expect(result.getMessageQueue().equals(chosen[0]), "another queue: " + result);
                tell(message, result);
            }
        });
    }

    static Message message(Order order, int number) {
        String body = order.topic + " " + order.group + " " + number;
        Message message = new Message(order.topic, Order.tag(number), order.group + "-" + number,
            body.getBytes(StandardCharsets.UTF_8));
        message.putUserProperty("number", String.valueOf(number));
        return message;
    }

    static String text(Message message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    private static void tell(Message message, SendResult result) {
        Order.expect(result.getSendStatus() == SendStatus.SEND_OK, "not stored: " + result);
        new Fact("sent").with("key", message.getKeys()).with("tag", message.getTags())
            .with("body", text(message)).answered(result).tell();
    }

    private interface Work {
        void with(DefaultMQProducer producer) throws Exception;
    }

    private static void with(Order order, Work work) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(order.group);
        producer.setNamesrvAddr(order.nameserver);
        producer.setSendMsgTimeout(10_000);
        producer.start();
        try {
            work.with(producer);
        } finally {
            producer.shutdown();
        }
    }
}
