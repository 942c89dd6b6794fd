import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/** What a push consumer does: it ends when it has `count` different messages and a moment has passed. */
final class Consuming {
    /** So long it stays afterwards, to see what should not come. */
    private static final long MORE_MILLISECONDS = 1_500;

    private final Order order;
    private final Set<String> bodies = new HashSet<>();
    private final CountDownLatch all = new CountDownLatch(1);

    private Consuming(Order order) {
        this.order = order;
    }

    /** Takes messages in any order; with `retry` each is sent back the first time. */
    static void concurrently(Order order, boolean retry) throws Exception {
        Consuming consuming = new Consuming(order);
        MessageListenerConcurrently listener = (messages, context) -> {
            // Batches have one message each unless told otherwise.
            MessageExt message = messages.get(0);
            if (retry && message.getReconsumeTimes() == 0) {
                Fact.received(message).with("answer", "later").tell();
                context.setDelayLevelWhenNextConsume(1);
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
            consuming.took(message);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        };
        consuming.until(consumer -> consumer.registerMessageListener(listener));
    }

    /** Takes each queue's messages one after the other, under the server's lock. */
    static void orderly(Order order) throws Exception {
        Consuming consuming = new Consuming(order);
        MessageListenerOrderly listener = (messages, context) -> {
            for (MessageExt message : messages) {
                consuming.took(message);
            }
            return ConsumeOrderlyStatus.SUCCESS;
        };
        consuming.until(consumer -> consumer.registerMessageListener(listener));
    }

    private DefaultMQPushConsumer consumer() throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(order.group);
        consumer.setNamesrvAddr(order.nameserver);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        if (order.subscription.startsWith("sql:")) {
            consumer.subscribe(order.topic, MessageSelector.bySql(order.subscription.substring(4)));
        } else {
            consumer.subscribe(order.topic, order.subscription);
        }
        return consumer;
    }

    private void took(MessageExt message) {
        Fact.received(message).with("answer", "taken").tell();
        synchronized (bodies) {
            // Not the id: a 5.3.3 server gives all messages of a batch the same.
            bodies.add(new String(message.getBody(), StandardCharsets.UTF_8));
            if (bodies.size() >= order.count) {
                all.countDown();
            }
        }
    }

    private void until(Consumer<DefaultMQPushConsumer> listen) throws Exception {
        DefaultMQPushConsumer consumer = Order.patiently(() -> {
            DefaultMQPushConsumer started = consumer();
            listen.accept(started);
            try {
                started.start();
            } catch (Exception failure) {
                // It cannot be started again, and its group is free only now.
                started.shutdown();
                throw failure;
            }
            return started;
        });
        new Fact("started").tell();
        // The watch in Client ends a wait in vain.
        all.await();
        TimeUnit.MILLISECONDS.sleep(MORE_MILLISECONDS);
        consumer.shutdown();
        synchronized (bodies) {
            Order.expect(bodies.size() == order.count, bodies.size() + " instead of " + order.count);
        }
    }
}
