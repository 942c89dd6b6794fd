import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * A service that sends, answers and consumes until it is killed, whatever happens to the server. What it says about a
 * message follows from the message's key alone, so that another instance says the same: the key is 32 hexadecimal digits,
 * and their number modulo 6 says what to do. 0: commit; 1: roll back; 2: nothing, and commit when asked; 3: nothing, and
 * roll back when asked; 4: nothing, nothing when asked first, and commit when asked again; 5: it is no half message.
 */
final class Endless implements TransactionListener {
    private static final LocalTransactionState COMMIT = LocalTransactionState.COMMIT_MESSAGE;
    private static final LocalTransactionState ROLLBACK = LocalTransactionState.ROLLBACK_MESSAGE;
    private static final LocalTransactionState UNKNOWN = LocalTransactionState.UNKNOW;

    /** A server that was killed is back soon; clients look after half a minute unless they are told otherwise. */
    private static final int LOOK_MILLISECONDS = 500;
    private static final long PAUSE_MILLISECONDS = 4;
    /** After a send that failed. */
    private static final long LONG_PAUSE_MILLISECONDS = 20;

    private final Order order;
    private final AtomicLong next = new AtomicLong(System.currentTimeMillis() << 20);
    private final Map<String, Integer> asked = new ConcurrentHashMap<>();

    private Endless(Order order) {
        this.order = order;
    }

    /** Never returns; `order.count` threads send. */
    static void serve(Order order) throws Exception {
        Endless endless = new Endless(order);
        endless.consume();
        TransactionMQProducer producer = new TransactionMQProducer(order.group);
        producer.setNamesrvAddr(order.nameserver);
        often(producer);
        // Each failure is told: nothing is sent twice under one key.
        producer.setRetryTimesWhenSendFailed(0);
        producer.setTransactionListener(endless);
        producer.start();
        List<Thread> senders = new ArrayList<>();
        for (int sender = 0; sender < order.count; sender++) {
            Thread thread = new Thread(() -> endless.sendAlways(producer), "sender-" + sender);
            thread.start();
            senders.add(thread);
        }
        if (senders.isEmpty()) {
            // Brokers know a producer once it has sent something.
            long number = endless.next.get() / 6 * 6 + 5;
            Order.patiently(() -> endless.send(producer, number));
        }
        new Fact("started").tell();
        new CountDownLatch(1).await();
    }

    private static void often(ClientConfig client) {
        client.setPollNameServerInterval(LOOK_MILLISECONDS);
        client.setHeartbeatBrokerInterval(LOOK_MILLISECONDS);
        client.setPersistConsumerOffsetInterval(LOOK_MILLISECONDS);
    }

    private void consume() throws Exception {
        MessageListenerConcurrently listener = (messages, context) -> {
            for (MessageExt message : messages) {
                new Fact("received").with("key", message.getKeys()).with("queue", message.getQueueId())
                    .with("offset", message.getQueueOffset()).tell();
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        };
        Order.patiently(() -> {
            DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(order.group + "-readers");
            consumer.setNamesrvAddr(order.nameserver);
            often(consumer);
            consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
            consumer.subscribe(order.topic, "*");
            consumer.registerMessageListener(listener);
            try {
                consumer.start();
            } catch (Exception failure) {
                consumer.shutdown();
                throw failure;
            }
            return consumer;
        });
    }

    private void sendAlways(TransactionMQProducer producer) {
        while (true) {
            long number = next.incrementAndGet();
            long pause = PAUSE_MILLISECONDS;
            try {
                send(producer, number);
            } catch (Exception failure) {
                new Fact("unknown").with("key", key(number)).with("why", why(failure)).tell();
                pause = LONG_PAUSE_MILLISECONDS;
            }
            try {
                TimeUnit.MILLISECONDS.sleep(pause);
            } catch (InterruptedException interrupted) {
                return;
            }
        }
    }

    private SendResult send(TransactionMQProducer producer, long number) throws Exception {
        String key = key(number);
        Message message = new Message(order.topic, "TagA", key, key.getBytes(StandardCharsets.UTF_8));
        boolean plain = number % 6 == 5;
        SendResult result = plain ? producer.send(message) : producer.sendMessageInTransaction(message, null);
        if (result.getSendStatus() == SendStatus.SEND_OK) {
            new Fact(plain ? "sent" : "half").with("key", key).tell();
        }
        return result;
    }

    private static String key(long number) {
        return String.format("%032X", number);
    }

    @Override
    public LocalTransactionState executeLocalTransaction(Message message, Object ignored) {
        switch (wanted(message)) {
            case 0: return COMMIT;
            case 1: return ROLLBACK;
            default: return UNKNOWN;
        }
    }

    @Override
    public LocalTransactionState checkLocalTransaction(MessageExt message) {
        int times = asked.merge(message.getKeys(), 1, Integer::sum);
        LocalTransactionState answer;
        switch (wanted(message)) {
            case 0: case 2: answer = COMMIT; break;
            case 4: answer = times == 1 ? UNKNOWN : COMMIT; break;
            default: answer = ROLLBACK;
        }
        new Fact("checked").with("key", message.getKeys()).with("answer", answer.name()).tell();
        return answer;
    }

    private static String why(Throwable failure) {
        StringBuilder why = new StringBuilder();
        for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
            why.append(cause).append("; ");
        }
        return why.toString();
    }

    private static int wanted(Message message) {
        return (int) (Long.parseLong(message.getKeys(), 16) % 6);
    }
}
